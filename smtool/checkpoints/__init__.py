"""Checkpoint files: those of smtool and those of other tools."""

from smtool.checkpoints.autoencoder import read_autoencoder, write_autoencoder

__all__ = ["read_autoencoder", "write_autoencoder"]
