"""`smtool eval`: one feature pass, every score."""
