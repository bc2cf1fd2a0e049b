"""What `inspect --cost` predicts for the recipes of the papers, and its error against measured CPU steps: docs/results/cost.md.

Usage: `python -m benchmarks.costs table [PATTERN]` predicts the recipes under recipes/paper (those whose path matches the
pattern) and writes their rows; it takes a few CPU-seconds a recipe. `OMP_NUM_THREADS=1 python -m benchmarks.costs errors`
measures steps of small recipes and writes the second table. Each replaces its own rows between two marks of the page, one by one.
"""
