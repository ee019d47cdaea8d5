"""Freely licensed music to train on, from Debian's archive: `python -m earvae_jax.train.free_music OUT`."""
