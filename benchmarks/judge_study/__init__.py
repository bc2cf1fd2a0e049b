"""How often does a distance tell which of two sets of images is better? A study of the judges of `smtool race`.

A ladder is one set of images degraded by rising amounts, so that the order of its levels is known. For random subsets of N images
of two neighbouring levels, the study counts how often each distance is smaller for the less degraded one: its power. Chance is
1/2.

Usage: `python -m benchmarks.judge_study --help`; docs/results/judge.md shows the results.
"""
