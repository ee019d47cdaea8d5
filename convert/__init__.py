"""Moving εar-VAE weights between PyTorch and JAX, with proof that nothing changed."""
