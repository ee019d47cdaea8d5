"""The position embeddings of the transformer: rotary, sinusoidal and learned."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from earvae_jax.errors import UserError
from earvae_jax.model.initial_values import constant, normal
from earvae_jax.model.layers import Buffer, uniform_param


class RotaryEmbedding(nnx.Module):
    """Rotates pairs of the leading dimensions of each head by an angle that grows with the position."""

    def __init__(self, dims: int):
        self.inv_freq = Buffer(constant(_frequencies(dims // 2)))

    def angles(self, length: int, *, start: int | Int[Array, ""] = 0) -> Float[Array, "N R"]:
        """Position times frequency, for positions from `start` on, with the list of frequencies twice."""
        position = (start + jnp.arange(length)).astype(jnp.float32)
        angles = position[:, None] * self.inv_freq[...]
        return jnp.concatenate([angles, angles], axis=-1)


def rotate(x: Float[Array, "B N H D"], angles: Float[Array, "N R"]) -> Float[Array, "B N H D"]:
    """Applies a rotary embedding (arXiv 2104.09864) in float32; dimension i pairs with i + R/2."""
    turned = x[..., : angles.shape[-1]].astype(jnp.promote_types(x.dtype, jnp.float32))
    first, second = jnp.split(turned, 2, axis=-1)
    swapped = jnp.concatenate([-second, first], axis=-1)
    angles = angles[..., None, :]
    turned = turned * jnp.cos(angles) + swapped * jnp.sin(angles)
    return jnp.concatenate([turned.astype(x.dtype), x[..., angles.shape[-1] :]], axis=-1)


class SinusoidalEmbedding(nnx.Module):
    """sin ‖ cos of position · 10000^(−i/(D/2)), times a learned scale."""

    def __init__(self, dim: int):
        self.dim = dim
        self.scale = nnx.Param(jnp.full(1, dim**-0.5, jnp.float32))

    def __call__(self, length: int) -> Float[Array, "N D"]:
        half = self.dim // 2
        frequencies = _frequencies(half)
        angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1) * self.scale[...]


class LearnedEmbedding(nnx.Module):
    """A learned vector per position, times D^−½."""

    def __init__(self, dim: int, longest: int, *, rngs: nnx.Rngs | None):
        self.emb = _Table(longest, dim, rngs=rngs)

    def __call__(self, length: int) -> Float[Array, "N D"]:
        longest, dim = self.emb.weight.shape
        if length > longest:
            raise UserError(
                f"{length} latents are more than abs_pos_emb_max_length {longest} of this model: "
                "cut the audio into shorter files"
            )
        return self.emb.weight[:length] * dim**-0.5


class _Table(nnx.Module):
    def __init__(self, rows: int, columns: int, *, rngs: nnx.Rngs | None):
        self.weight = uniform_param((rows, columns), 0.0, rngs)
        if rngs is not None:
            self.weight.set_value(normal(rngs, (rows, columns)))


def _frequencies(count: int) -> Float[np.ndarray, " F"]:
    """10000^(−i/count). XLA's float32 power is off by several roundings, which positions multiply."""
    return np.float32(10_000) ** -(np.arange(count, dtype=np.float32) / np.float32(count))
