"""`smtool prepare`: images into shards, shards into latents."""
