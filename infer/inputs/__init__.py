"""What people hand to the codec: audio, latents, paths, and lists of these."""
