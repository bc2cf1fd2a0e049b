"""Does a correction of exposure bias bring samples nearer to the images? A study of finished runs of `smtool train-dit`.

Usage: `python -m benchmarks.exposure_sweep --help`; docs/results/exposure-bias.md shows the results.
"""
