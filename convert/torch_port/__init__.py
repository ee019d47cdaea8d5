"""εar-VAE in PyTorch, with the published state dict: what JAX is compared with."""
