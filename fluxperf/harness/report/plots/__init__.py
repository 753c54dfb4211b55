"""The report's plots, a file each. Every plot comes with its words: a sentence per value, for whoever cannot see it."""
