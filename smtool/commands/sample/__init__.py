"""`smtool sample`: images from a diffusion checkpoint."""
