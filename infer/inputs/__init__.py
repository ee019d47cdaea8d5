"""The inputs of the codec: audio, latents, paths, and lists of these."""
