"""Proof that PyTorch and JAX compute the same, part by part."""
