"""Released trainers and smtool side by side, step by step in one process, on the same batches: benchmarks/README.md.

Usage: `python -m benchmarks.released autoencoder|repa --reference PATH`; PATH is a folder with the checkouts of tests/parity.
Where there is none, one sentence says so. The released `main()` runs as it is; when it asks its loader for a batch, smtool first
takes its own step on that batch, so that other load on the machine affects both. Losses are compared before times are reported.
"""
