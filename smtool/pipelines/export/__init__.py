"""`smtool export`: from one tool's files to another's."""
