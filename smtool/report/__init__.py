"""What people look at: console, logs, plots, tables, pages."""
