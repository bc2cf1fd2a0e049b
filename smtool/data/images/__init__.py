"""Images in: sources, their transform, shards, and readers in an exact order."""
