"""The one loop and what it needs: optimizers, EMA, precision, balance, checkpoints, ranks."""
