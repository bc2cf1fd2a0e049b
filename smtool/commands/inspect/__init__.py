"""`smtool inspect`: what is in a file."""
