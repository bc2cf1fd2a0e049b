"""Train, measure and compare image autoencoders by the spectra of their latents (Spectrum Matching, arXiv 2603.14645)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smtool.interop import load_autoencoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_autoencoder"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `smtool --help` does not wait for torch."""
    if name == "load_autoencoder":
        from smtool.interop import load_autoencoder

        return load_autoencoder
    raise AttributeError(f"module 'smtool' has no attribute {name!r}")
