"""Tokenizers: anything that turns images into latents and mostly back, opened by one name."""

from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.open import Found, identify, load_autoencoder, open_tokenizer

__all__ = ["Found", "Tokenizer", "identify", "load_autoencoder", "open_tokenizer"]
