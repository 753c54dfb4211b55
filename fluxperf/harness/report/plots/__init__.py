"""The report's plots, a file each. Every plot has a text with a sentence per value, for readers who cannot see it."""
