"""The page of one capture, and its parts for other pages: the strip of one step, gaps, tables, and their scripts."""
