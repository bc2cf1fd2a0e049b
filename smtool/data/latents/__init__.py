"""Latent caches: posterior moments of every image, statistics for normalization, and batches for training."""
