"""Encoding, decoding and evaluating music files with εar-VAE."""

import importlib


def __getattr__(name: str):
    # Loaded on first use: the command line imports this package before it knows that JAX is needed.
    if name in ("Codec", "Latents"):
        module = importlib.import_module(f"{__name__}.{'codec' if name == 'Codec' else 'latents'}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
