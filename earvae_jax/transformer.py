"""The transformer in front of the decoder, over [B, N, D] latents.

Module and attribute names are those of the published PyTorch code, so that weight names map one to one.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from earvae_jax.attention import BLOCK, attend, attention, blocks, in_blocks
from earvae_jax.config import TransformerConfig
from earvae_jax.layers import Identity
from earvae_jax.positions import LearnedEmbedding, RotaryEmbedding, SinusoidalEmbedding, rotate
from earvae_jax.sequence_layers import Conformer, FeedForward, HeadNorm, LayerNorm, Linear


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
        self, x: Float[Array, "B N D"], angles: Float[Array, "1 N R"] | None
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
        """The heads side by side, through the output layer."""
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
        self.rowwise_ff = not config.ff_kwargs.use_conv  # its rows do not see each other

    def __call__(
        self,
        x: Float[Array, "B N D"],
        angles: Float[Array, "1 N R"] | None,
        length: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B N D"]:
        long = x.shape[1] > BLOCK
        x = self._attend_long(x, angles, length) if long else self._attend(x, angles, length)
        if self.conformer is not None:
            x = x + self.conformer(x, length)
        if long and self.rowwise_ff:
            return in_blocks(lambda rows: rows + self.ff(self.ff_norm(rows)), x)
        return x + self.ff(self.ff_norm(x), length)

    def _attend(self, x, angles, length):
        query, key, value = self.self_attn.query_key_value(self.pre_norm(x), angles)
        return x + self.self_attn.output(attention(query, key, value, length=length))

    def _attend_long(self, x, angles, length):
        """Keys and values of the whole sequence are kept; queries and outputs exist a block at a time."""
        if length is None:
            length = jnp.full((x.shape[0],), x.shape[1], jnp.int32)

        def project(rows, angles=None):
            return self.self_attn.query_key_value(self.pre_norm(rows), angles)

        def update(rows, angles=None):
            query = project(rows, angles)[0]
            return rows + self.self_attn.output(attend(query, blocks(keys), blocks(values), length))

        positions = () if angles is None else (angles,)
        keys, values = in_blocks(lambda *rows: project(*rows)[1:], x, *positions)
        return in_blocks(update, x, *positions)


class Transformer(nnx.Module):
    """Blocks without a mask: every latent of a file attends to all of them. Length: N.

    Where the array is longer than the file, `length` says how many latents of each item exist; the others
    change nothing and come out undefined. Memory is linear in N.
    """

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs | None):
        self.layers = nnx.List([TransformerBlock(dim, config, rngs=rngs) for _ in range(config.depth)])
        self.rotary_pos_emb = RotaryEmbedding(config.rotary_dims) if config.rotary_pos_emb else None
        if config.use_sinusoidal_emb:
            self.pos_emb = SinusoidalEmbedding(dim)
        elif config.use_abs_pos_emb:
            self.pos_emb = LearnedEmbedding(dim, config.abs_pos_emb_max_length, rngs=rngs)
        else:
            self.pos_emb = None

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, "B"] | None = None
    ) -> Float[Array, "B N D"]:
        x, angles = self.embed(x)
        for layer in self.layers:
            x = layer(x, angles, length)
        return x

    def embed(self, x: Float[Array, "B N D"]) -> tuple[Float[Array, "B N D"], Float[Array, "1 N R"] | None]:
        """The input with its positions added, and the angles of the rotary embedding."""
        size = x.shape[1]
        if self.pos_emb is not None:
            x = x + self.pos_emb(size).astype(x.dtype)
        return x, None if self.rotary_pos_emb is None else self.rotary_pos_emb.angles(size)[None]


def _unit(x: Float[Array, "B N H D"]) -> Float[Array, "B N H D"]:
    """x/‖x‖ over a head; zeros stay zero, with a zero gradient."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / jnp.where(square > 0, jnp.maximum(norm, 1e-12), 1.0)
