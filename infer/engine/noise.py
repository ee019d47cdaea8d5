"""The noise of sampled latents; it does not depend on windows, batches or devices."""

import os
import zlib

import jax
import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError
from earvae_jax.flag_types import is_seed

_BLOCK = 1024  # latents whose noise comes from one key


def standard_normal(count: int, dim: int, *, seed: int, name: str) -> Float[np.ndarray, "N D"]:
    """Noise [count, dim] that depends only on seed, name and latent index.

    Raises:
      UserError: the seed has more than 64 bits.
    """
    check_seed(seed)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(os.fsencode(name)))
    blocks = [
        np.asarray(jax.random.normal(jax.random.fold_in(key, block), (_BLOCK, dim)))
        for block in range(-(-count // _BLOCK))
    ]
    return np.concatenate(blocks)[:count]


def check_seed(seed: int) -> None:
    """Raises a `UserError` if the seed has more than 64 bits."""
    if not is_seed(seed):
        raise UserError(f"seed {seed}: it has more than 64 bits")
