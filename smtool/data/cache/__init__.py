"""Caches of what a frozen network computes of every image: card, shards, writing, reading."""
