"""`smtool sample`: draw images from a diffusion checkpoint."""
