"""The training loop and its parts: optimizers, EMA, precision, loss terms, checkpoints, ranks."""
