"""The report: one offline HTML page from records alone."""
