"""Autoencoders written by other tools."""
