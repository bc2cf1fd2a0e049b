"""Train, measure and compare image autoencoders by the spectra of their latents (Spectrum Matching, arXiv 2603.14645)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smtool.tokenizers import load_autoencoder, open_tokenizer

__version__ = "0.1.0"
__all__ = ["__version__", "load_autoencoder", "open_tokenizer"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `smtool --help` does not wait for torch."""
    if name in ("load_autoencoder", "open_tokenizer"):
        from smtool import tokenizers

        return getattr(tokenizers, name)
    raise AttributeError(f"module 'smtool' has no attribute {name!r}")
