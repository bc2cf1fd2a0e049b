"""Tokenizers: all models and functions that encode images to latents, opened by a name or path."""

from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.open import Found, identify, load_autoencoder, open_tokenizer

__all__ = ["Found", "Tokenizer", "identify", "load_autoencoder", "open_tokenizer"]
