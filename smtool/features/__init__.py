"""Frozen feature networks, and where their weights live."""
