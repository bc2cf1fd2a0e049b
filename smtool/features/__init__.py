"""Frozen feature networks, and where their weight files are found."""
