"""What every page is made of: tables and figures as plain data, the templates that draw them, style and script."""
