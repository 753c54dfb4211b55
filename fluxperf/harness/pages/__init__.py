"""Parts of every page: tables and figures as plain data, the templates that draw them, style and script."""
