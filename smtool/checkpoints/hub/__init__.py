"""Autoencoders on the Hugging Face hub: short names, and files in its cache."""
