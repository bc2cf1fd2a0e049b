"""Autoencoder files of other tools: one module for each published format, with its key names."""
