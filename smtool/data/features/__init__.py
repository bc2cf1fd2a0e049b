"""Caches of a teacher's features."""
