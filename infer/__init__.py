"""Encoding, decoding and evaluating music files with εar-VAE."""
