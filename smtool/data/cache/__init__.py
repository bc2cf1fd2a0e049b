"""Caches of the outputs of a frozen network for every image: card, shards, writing, reading."""
