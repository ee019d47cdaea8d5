"""Softmax attention whose memory grows with the length of the sequence, not with its square."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

BLOCK = 1024  # rows of a block of queries, and of keys


def attention(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B N H D"],
    value: Float[Array, "B N H D"],
    *,
    length: Int[Array, " B"] | None = None,
    block: int = BLOCK,
) -> Float[Array, "B N H D"]:
    """softmax(q·kᵀ/√D)·v over the first `length` keys of each item, by default all.

    Sequences up to one block are computed at once, longer ones block by block; both are the same to rounding.
    """
    batch, size = query.shape[:2]
    if length is None:
        length = jnp.full((batch,), size, jnp.int32)
    if size <= block:
        scores = _scores(query, key) + _hidden(jnp.arange(size), length)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    keys_and_values = blocks(key, block), blocks(value, block)

    def update(_, rows):
        return attend(rows, lambda _, key_and_value: key_and_value, keys_and_values, length)

    return joined(map_blocks(update, blocks(query, block)))[:, :size]


def attend(
    query: Float[Array, "B M H D"],
    key_and_value: Callable[..., tuple[Float[Array, "B M H D"], Float[Array, "B M H D"]]],
    sequence: PyTree[Float[Array, "K B M *S"]],
    length: Int[Array, " B"],
) -> Float[Array, "B M H D"]:
    """Attention of a block of queries to every block of a sequence, of which the first `length` rows exist.

    `key_and_value(index, block)` computes keys and values of a block when they are needed, so that a layer
    need not keep them for the whole sequence. This is the online softmax of arXiv 1805.02867: it keeps a
    running maximum and sum, and one block of scores at a time. It skips blocks after the last existing row.
    """
    batch, size, heads, width = query.shape
    wide = jnp.promote_types(query.dtype, jnp.float32)
    start = (
        jnp.full((batch, heads, size), -jnp.inf, wide),
        jnp.zeros((batch, heads, size), wide),
        jnp.zeros((batch, heads, size, width), wide),
    )
    count, _, rows = jax.tree.leaves(sequence)[0].shape[:3]
    used = -(-jnp.max(length) // rows)

    def visit(carry, block):
        maximum, total, output = carry
        index, rows = block
        key, value = key_and_value(index, rows)
        scores = _scores(query, key) + _hidden(index * key.shape[1] + jnp.arange(key.shape[1]), length)
        # Every item has a first key, so the maximum is finite from the first block on.
        new = jnp.maximum(maximum, jnp.max(scores, axis=-1))
        weights = jnp.exp(scores - new[..., None])
        shrink = jnp.exp(maximum - new)
        update = jnp.einsum("bhqk,bkhd->bhqd", weights.astype(value.dtype), value)
        total = total * shrink + jnp.sum(weights, axis=-1)
        return new, total, output * shrink[..., None] + update.astype(wide)

    def step(carry, block):
        return lax.cond(block[0] < used, visit, lambda carry, _: carry, carry, block), None

    (_, total, output), _ = lax.scan(step, start, (jnp.arange(count), sequence))
    return (output / total[..., None]).swapaxes(1, 2).astype(query.dtype)


def blocks(x: Float[Array, "B N *S"], block: int = BLOCK) -> Float[Array, "K B M *S"]:
    """Cuts the sequence into a leading axis of blocks, with zeros after its end."""
    count = -(-x.shape[1] // block)
    x = jnp.pad(x, ((0, 0), (0, count * block - x.shape[1]), *[(0, 0)] * (x.ndim - 2)))
    return x.reshape(x.shape[0], count, block, *x.shape[2:]).swapaxes(0, 1)


def joined(x: Float[Array, "K B M *S"]) -> Float[Array, "B N *S"]:
    """Joins what `blocks` cut; the zeros after the end stay."""
    x = x.swapaxes(0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def map_blocks(function: Callable[..., PyTree], x: Float[Array, "K B M *S"]) -> PyTree:
    """Applies function(index, block) to every block, one at a time.

    The forward and the backward pass keep the function's intermediate arrays for one block only.
    """
    function = jax.checkpoint(function)
    return lax.map(lambda block: function(*block), (jnp.arange(x.shape[0]), x))


def _scores(query: Float[Array, "B Q H D"], key: Float[Array, "B K H D"]) -> Float[Array, "B H Q K"]:
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    return scores / math.sqrt(query.shape[-1])


def _hidden(positions: Int[Array, " K"], length: Int[Array, " B"]) -> Float[Array, "B 1 1 K"]:
    """0 for keys that exist, −∞ for the others."""
    return jnp.where(positions < length[:, None], 0.0, -jnp.inf)[:, None, None, :]
