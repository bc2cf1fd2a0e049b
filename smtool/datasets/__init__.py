"""Images in, shards out, batches back: sources, shards and readers."""
