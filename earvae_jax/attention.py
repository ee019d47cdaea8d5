"""Softmax attention whose memory grows with the length of the sequence, not with its square."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

BLOCK = 1024


def attention(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B N H D"],
    value: Float[Array, "B N H D"],
    *,
    length: Int[Array, "B"] | None = None,
    block: int = BLOCK,
) -> Float[Array, "B N H D"]:
    """softmax(q·kᵀ/√D)·v over the first `length` keys of each item, by default all.

    Sequences up to one block are computed at once; longer ones in blocks of queries and keys with the online
    softmax of arXiv 1805.02867, keeping a running maximum and sum. Both are the same to rounding.
    """
    size = query.shape[1]
    if length is None:
        length = jnp.full((query.shape[0],), size, jnp.int32)
    if size <= block:
        scores = _scores(query, key) + _hidden(jnp.arange(size), length)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    blocks = -(-size // block)
    pad = ((0, 0), (0, blocks * block - size), (0, 0), (0, 0))
    query, key, value = (
        jnp.pad(x, pad).reshape(x.shape[0], blocks, block, *x.shape[2:]).swapaxes(0, 1)
        for x in (query, key, value)
    )  # [blocks, B, block, H, D]
    # Blocks of keys behind the last existing one hold nothing: the loops do not visit them.
    used = jnp.minimum(-(-jnp.max(length) // block), blocks)
    attend = jax.checkpoint(lambda q: _attend_in_blocks(q, key, value, length, used))
    y = lax.map(attend, query)
    return y.swapaxes(0, 1).reshape(y.shape[1], blocks * block, *y.shape[3:])[:, :size]


def _attend_in_blocks(
    query: Float[Array, "B M H D"],
    keys: Float[Array, "K B M H D"],
    values: Float[Array, "K B M H D"],
    length: Int[Array, "B"],
    used: Int[Array, ""],
) -> Float[Array, "B M H D"]:
    """One block of queries against every block of keys."""
    batch, size, heads, width = query.shape
    wide = jnp.promote_types(query.dtype, jnp.float32)
    start = (
        jnp.full((batch, heads, size), -jnp.inf, wide),
        jnp.zeros((batch, heads, size), wide),
        jnp.zeros((batch, heads, size, width), wide),
    )

    def visit(carry, block):
        index, key, value = block
        maximum, total, output = carry
        scores = _scores(query, key) + _hidden(index * size + jnp.arange(size), length)
        new = jnp.maximum(maximum, jnp.max(scores, axis=-1))
        # Every item has a first key, so the maximum is finite from the first block on.
        weights = jnp.exp(scores - new[..., None])
        shrink = jnp.exp(maximum - new)
        total = total * shrink + jnp.sum(weights, axis=-1)
        update = jnp.einsum("bhqk,bkhd->bhqd", weights.astype(value.dtype), value)
        return new, total, output * shrink[..., None] + update.astype(wide)

    def step(carry, block):
        carry = lax.cond(block[0] < used, visit, lambda carry, _: carry, carry, block)
        return carry, None

    (_, total, output), _ = lax.scan(step, start, (jnp.arange(keys.shape[0]), keys, values))
    return (output / total[..., None]).swapaxes(1, 2).astype(query.dtype)


def _scores(query: Float[Array, "B Q H D"], key: Float[Array, "B K H D"]) -> Float[Array, "B H Q K"]:
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    return scores / math.sqrt(query.shape[-1])


def _hidden(positions: Int[Array, "K"], length: Int[Array, "B"]) -> Float[Array, "B 1 1 K"]:
    """0 for keys that exist, −∞ for the others."""
    return jnp.where(positions < length[:, None], 0.0, -jnp.inf)[:, None, None, :]
