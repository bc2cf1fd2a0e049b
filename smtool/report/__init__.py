"""Output for people: console, logs, plots, tables, HTML pages."""
