"""Encoding, decoding and evaluating music files with εar-VAE."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see
    from earvae_jax.infer.codec import Codec
    from earvae_jax.infer.latents import Latents

__all__ = ["Codec", "Latents"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line imports this package before it knows that JAX is needed.
    if name in ("Codec", "Latents"):
        module = importlib.import_module(f"{__name__}.{'codec' if name == 'Codec' else 'latents'}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
