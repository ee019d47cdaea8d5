"""Collections of latents: shards and folders of files, what is in them, and their statistics."""
