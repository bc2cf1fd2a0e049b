"""`smtool inspect`: describe a file or folder."""
