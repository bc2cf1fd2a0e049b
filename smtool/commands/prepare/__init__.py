"""`smtool prepare`: write images as shards, and caches of their latents or features."""
