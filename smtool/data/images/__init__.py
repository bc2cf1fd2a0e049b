"""Image data sets: sources, transform to squares, shards, and readers with a reproducible order."""
