"""Autoencoders from files: our own checkpoints and those of other tools."""

from pathlib import Path

from smtool.errors import CheckpointError
from smtool.interop.native import autoencoder_digest, read_autoencoder, write_autoencoder
from smtool.networks.autoencoder import Autoencoder

__all__ = ["autoencoder_digest", "load_autoencoder", "read_autoencoder", "write_autoencoder"]


def load_autoencoder(path_or_name: str | Path, *, device: str = "cpu") -> Autoencoder:
    """Open an autoencoder: a file or run folder of ours."""
    path = Path(path_or_name)
    if path.is_dir():
        path = path / "ckpt.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path}: no such file.")
    return read_autoencoder(path, device)
