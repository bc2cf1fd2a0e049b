"""Latent caches: moments of every image, the statistics that normalize them, and batches for training."""
