"""Autoencoders from files: our own checkpoints and those of other tools."""

from smtool.interop.load import find_autoencoder, load_autoencoder
from smtool.interop.native import autoencoder_digest, read_autoencoder, write_autoencoder

__all__ = ["autoencoder_digest", "find_autoencoder", "load_autoencoder", "read_autoencoder", "write_autoencoder"]
