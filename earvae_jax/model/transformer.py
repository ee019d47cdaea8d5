"""The transformer in front of the decoder, over [B, N, D] latents.

Module and attribute names are those of the published PyTorch code, so that weight names map one to one.
"""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from earvae_jax.model.attention import BLOCK, attend, attention, blocks, joined, map_blocks
from earvae_jax.model.config import TransformerConfig
from earvae_jax.model.layers import Extent, Identity
from earvae_jax.model.positions import LearnedEmbedding, RotaryEmbedding, SinusoidalEmbedding, rotate
from earvae_jax.model.transformer_layers import Conformer, FeedForward, HeadNorm, LayerNorm, Linear


class SelfAttention(nnx.Module):
    """Multi-head attention over all latents; the output layer starts at zero. Length: N."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs | None):
        self.heads, self.qk_norm = dim // config.dim_heads, config.attn_kwargs.qk_norm
        self.to_qkv = Linear(dim, 3 * dim, bias=False, rngs=rngs)
        self.to_out = Linear(dim, dim, bias=False, zero_init=True, rngs=rngs)
        if self.qk_norm == "ln":
            self.q_norm = HeadNorm(config.dim_heads)
            self.k_norm = HeadNorm(config.dim_heads)

    def query_key_value(
        self, x: Float[Array, "B N D"], angles: Float[Array, "N R"] | None
    ) -> tuple[Float[Array, "B N H E"], Float[Array, "B N H E"], Float[Array, "B N H E"]]:
        """Queries and keys, normalised and rotated, and values."""
        query, key, value = (
            part.reshape(*x.shape[:2], self.heads, -1) for part in jnp.split(self.to_qkv(x), 3, axis=-1)
        )
        if self.qk_norm == "ln":
            query, key = self.q_norm(query), self.k_norm(key)
        elif self.qk_norm == "l2":
            query, key = _unit(query), _unit(key)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        return query, key, value

    def output(self, attended: Float[Array, "B N H E"]) -> Float[Array, "B N D"]:
        """Joins the heads and applies the output layer."""
        return self.to_out(attended.reshape(*attended.shape[:2], -1))


class TransformerBlock(nnx.Module):
    """x += attention(norm(x)); x += conformer(x); x += feed-forward(norm(x)). Length: N."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs | None):
        norm = config.norm_kwargs
        self.pre_norm = Identity() if config.remove_norms else LayerNorm(dim, norm)
        self.self_attn = SelfAttention(dim, config, rngs=rngs)
        self.ff_norm = Identity() if config.remove_norms else LayerNorm(dim, norm)
        self.ff = FeedForward(dim, config.ff_kwargs, rngs=rngs)
        self.conformer = Conformer(dim, norm, rngs=rngs) if config.conformer else None
        self.rowwise_ff = not config.ff_kwargs.use_conv  # it computes each row by itself

    def __call__(
        self,
        x: Float[Array, "B N D"],
        rotary: RotaryEmbedding | None,
        length: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B N D"]:
        size = x.shape[1]
        if size > BLOCK:
            length = jnp.full((x.shape[0],), size, jnp.int32) if length is None else length
            return joined(self.in_blocks(blocks(x, BLOCK), rotary, length))[:, :size]
        angles = None if rotary is None else rotary.angles(size)
        query, key, value = self.self_attn.query_key_value(self.pre_norm(x), angles)
        x = x + self.self_attn.output(attention(query, key, value, length=length))
        return self._feed_forward(self._convolve(x, length), length)

    def in_blocks(
        self, x: Float[Array, "K B M D"], rotary: RotaryEmbedding | None, length: Int[Array, " B"]
    ) -> Float[Array, "K B M D"]:
        """Computes the same on a sequence cut by `attention.blocks`.

        Except for input and output, arrays exist for one block at a time. Keys and values are computed again
        for each block of queries: a few per cent more work, but two arrays of the sequence less in memory.
        """
        size = x.shape[2]
        rowwise = self.conformer is None and self.rowwise_ff

        def project(index, rows):
            angles = None if rotary is None else rotary.angles(size, start=index * size)
            return self.self_attn.query_key_value(self.pre_norm(rows), angles)

        def update(index, rows):
            query, _, _ = project(index, rows)
            attended = attend(query, lambda *block: project(*block)[1:], x, length)
            rows = rows + self.self_attn.output(attended)
            return self._feed_forward(rows, None) if rowwise else rows

        def pass_over(_, rows):
            return rows

        used = -(-jnp.max(length) // size)
        updated = map_blocks(lambda index, rows: lax.cond(index < used, update, pass_over, index, rows), x)
        if rowwise:
            return updated
        whole = self._convolve(joined(updated), length)
        return blocks(self._feed_forward(whole, length), size)

    def _convolve(self, x: Float[Array, "B N D"], length: Int[Array, " B"] | None) -> Float[Array, "B N D"]:
        return x if self.conformer is None else x + self.conformer(x, length)

    def _feed_forward(
        self, x: Float[Array, "B N D"], length: Int[Array, " B"] | None
    ) -> Float[Array, "B N D"]:
        return x + self.ff(self.ff_norm(x), length)


class Transformer(nnx.Module):
    """Blocks without a mask: every latent of a file attends to all latents of the file. Length: N.

    If the array is longer than the file, `length` says how many latents of each item exist. The others, NaN
    included, change nothing, and their outputs are undefined. Memory is linear in N.
    """

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs | None):
        self.layers = nnx.List([TransformerBlock(dim, config, rngs=rngs) for _ in range(config.depth)])
        self.rotary_pos_emb = RotaryEmbedding(config.rotary_dims) if config.rotary_pos_emb else None
        self.pos_emb: SinusoidalEmbedding | LearnedEmbedding | None
        if config.use_sinusoidal_emb:
            self.pos_emb = SinusoidalEmbedding(dim)
        elif config.use_abs_pos_emb:
            self.pos_emb = LearnedEmbedding(dim, config.abs_pos_emb_max_length, rngs=rngs)
        else:
            self.pos_emb = None

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, " B"] | None = None
    ) -> Float[Array, "B N D"]:
        x = self.embed(x)
        if length is not None:  # hidden keys weigh zero, and zero times NaN is NaN
            x = Extent(jnp.zeros_like(length), length).keep(x)
        for layer in self.layers:
            x = layer(x, self.rotary_pos_emb, length)
        return x

    def embed(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """The input with its positions added, where the config asks for that."""
        return x if self.pos_emb is None else x + self.pos_emb(x.shape[1]).astype(x.dtype)


def _unit(x: Float[Array, "B N H D"]) -> Float[Array, "B N H D"]:
    """x/‖x‖ over a head; zeros stay zero, with a zero gradient."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / jnp.where(square > 0, jnp.maximum(norm, 1e-12), 1.0)
