"""Training εar-VAE with phase-aware losses."""
