"""`smtool eval`: all requested scores from one pass over the images."""
