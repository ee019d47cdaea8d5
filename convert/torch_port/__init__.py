"""εar-VAE in PyTorch, with the published state dict: the reference for JAX."""
