"""Parts of every page: tables and figures as plain data, templates, style sheet and script."""
