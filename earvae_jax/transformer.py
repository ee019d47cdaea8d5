"""The transformer in front of the decoder, over [B, N, D] latents.

Module and attribute names are those of the published PyTorch code, so that weight names map one to one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from earvae_jax.attention import attention
from earvae_jax.config import FeedForwardConfig, NormConfig, TransformerConfig
from earvae_jax.errors import UserError
from earvae_jax.layers import Buffer, Identity, conv1d, uniform_param

_CONFORMER_WIDTH = 17


class LayerNorm(nnx.Module):
    """(x − mean)/√(var + eps) · gamma + beta over the last axis.

    beta is applied even where it is not trained: the published files hold it as a constant.
    """

    def __init__(self, dim: int, config: NormConfig = NormConfig(), *, epsilon: float = 1e-5):  # noqa: B008
        self.epsilon = epsilon
        self.gamma = (Buffer if config.fix_scale else nnx.Param)(jnp.ones(dim, jnp.float32))
        self.beta = (nnx.Param if config.bias else Buffer)(jnp.zeros(dim, jnp.float32))

    def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        y = centred / jnp.sqrt(variance + self.epsilon) * self.gamma[...] + self.beta[...]
        return y.astype(x.dtype)


class Linear(nnx.Module):
    """x·weight + bias over the last axis, initialised as torch does."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, zero_init: bool = False, rngs: nnx.Rngs
    ):
        bound = 0.0 if zero_init else inputs**-0.5
        self.weight = uniform_param((inputs, outputs), bound, rngs)
        self.bias = uniform_param((outputs,), bound, rngs) if bias else None

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S O"]:
        y = x @ self.weight[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class SequenceConv(nnx.Module):
    """A plain convolution over the latents, `groups` channels apart; odd width, length N."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        *,
        bias: bool = True,
        depthwise: bool = False,
        zero_init: bool = False,
        rngs: nnx.Rngs,
    ):
        self.depthwise = depthwise
        fan_in = 1 if depthwise else inputs
        bound = 0.0 if zero_init else (fan_in * width) ** -0.5
        shape = (width, fan_in, outputs)
        self.weight = uniform_param(shape, bound, rngs)
        self.bias = uniform_param((outputs,), bound, rngs) if bias else None

    def __call__(
        self, x: Float[Array, "B N I"], length: Int[Array, "B"] | None = None
    ) -> Float[Array, "B N O"]:
        kernel = self.weight[...]
        padding = kernel.shape[0] // 2
        if length is not None and padding:
            x = jnp.where(jnp.arange(x.shape[1])[None, :, None] < length[:, None, None], x, 0)
        if self.depthwise:
            y = lax.conv_general_dilated(
                x,
                kernel.astype(x.dtype),
                (1,),
                ((padding, padding),),
                dimension_numbers=("NWC", "WIO", "NWC"),
                feature_group_count=x.shape[-1],
            )
        else:
            y = conv1d(x, kernel, padding=padding)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class GatedLinear(nnx.Module):
    """a · silu(b), with a ‖ b one linear layer of x."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.proj = Linear(inputs, 2 * outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S O"]:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.silu(gate)


class FeedForward(nnx.Module):
    """A gated or plain inner layer and the layer back; the second starts at zero. Length: N."""

    def __init__(self, dim: int, config: FeedForwardConfig, *, rngs: nnx.Rngs):
        self.glu = config.glu
        inner, bias = dim * config.mult, not config.no_bias
        if config.glu:
            first = GatedLinear(dim, inner, rngs=rngs)
        elif config.use_conv:
            # The published list has the layer at index 1 of a list of its own.
            first = nnx.List(
                [Identity(), SequenceConv(dim, inner, config.conv_kernel_size, bias=bias, rngs=rngs)]
            )
        else:
            first = nnx.List([Identity(), Linear(dim, inner, bias=bias, rngs=rngs)])
        if config.use_conv:
            last = SequenceConv(inner, dim, config.conv_kernel_size, bias=bias, zero_init=True, rngs=rngs)
        else:
            last = Linear(inner, dim, bias=bias, zero_init=True, rngs=rngs)
        self.ff = nnx.List([first, Identity(), last])

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, "B"] | None = None
    ) -> Float[Array, "B N D"]:
        first, _, last = self.ff
        inner = first(x) if self.glu else jax.nn.silu(_apply(first[1], x, length))
        return _apply(last, inner, length)


class RotaryEmbedding(nnx.Module):
    """Turns pairs of the leading dimensions of each head by an angle that grows with the position."""

    def __init__(self, dims: int):
        self.inv_freq = Buffer(jnp.asarray(_frequencies(dims // 2)))

    def angles(self, length: int) -> Float[Array, "N R"]:
        """Position times frequency, the list of frequencies twice."""
        angles = jnp.arange(length, dtype=jnp.float32)[:, None] * self.inv_freq[...]
        return jnp.concatenate([angles, angles], axis=-1)


def rotate(x: Float[Array, "B N H D"], angles: Float[Array, "N R"]) -> Float[Array, "B N H D"]:
    """Applies a rotary embedding (arXiv 2104.09864) in float32; dimension i pairs with i + R/2."""
    turned = x[..., : angles.shape[-1]].astype(jnp.promote_types(x.dtype, jnp.float32))
    first, second = jnp.split(turned, 2, axis=-1)
    swapped = jnp.concatenate([-second, first], axis=-1)
    angles = angles[:, None, :]
    turned = turned * jnp.cos(angles) + swapped * jnp.sin(angles)
    return jnp.concatenate([turned.astype(x.dtype), x[..., angles.shape[-1] :]], axis=-1)


class HeadNorm(nnx.Module):
    """LayerNorm over the width of a head, with the parameter names of `torch.nn.LayerNorm`."""

    def __init__(self, dim: int):
        self.weight = nnx.Param(jnp.ones(dim, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(dim, jnp.float32))

    def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return centred / jnp.sqrt(variance + 1e-6) * self.weight[...] + self.bias[...]


class SelfAttention(nnx.Module):
    """Multi-head attention over all latents; the output layer starts at zero. Length: N."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.heads, self.qk_norm = dim // config.dim_heads, config.attn_kwargs.qk_norm
        self.to_qkv = Linear(dim, 3 * dim, bias=False, rngs=rngs)
        self.to_out = Linear(dim, dim, bias=False, zero_init=True, rngs=rngs)
        if self.qk_norm == "ln":
            self.q_norm = HeadNorm(config.dim_heads)
            self.k_norm = HeadNorm(config.dim_heads)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        angles: Float[Array, "N R"] | None,
        length: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B N D"]:
        batch, size, dim = x.shape
        query, key, value = (
            part.reshape(batch, size, self.heads, dim // self.heads)
            for part in jnp.split(self.to_qkv(x), 3, axis=-1)
        )
        if self.qk_norm == "ln":
            query, key = self.q_norm(query), self.k_norm(key)
        elif self.qk_norm == "l2":
            query, key = _unit(query), _unit(key)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        return self.to_out(attention(query, key, value, length=length).reshape(batch, size, dim))


class Conformer(nnx.Module):
    """Pointwise convolution, gate, depthwise convolution, norm, SiLU, pointwise convolution. Length: N."""

    def __init__(self, dim: int, norm: NormConfig, *, rngs: nnx.Rngs):
        self.in_norm = LayerNorm(dim, norm)
        self.pointwise_conv = SequenceConv(dim, dim, 1, bias=False, rngs=rngs)
        self.glu = GatedLinear(dim, dim, rngs=rngs)
        self.depthwise_conv = SequenceConv(dim, dim, _CONFORMER_WIDTH, bias=False, depthwise=True, rngs=rngs)
        self.mid_norm = LayerNorm(dim, norm)
        self.pointwise_conv_2 = SequenceConv(dim, dim, 1, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, "B"] | None = None
    ) -> Float[Array, "B N D"]:
        x = self.glu(self.pointwise_conv(self.in_norm(x)))
        x = self.mid_norm(self.depthwise_conv(x, length))
        return self.pointwise_conv_2(jax.nn.silu(x))


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

    def __init__(self, dim: int, longest: int, *, rngs: nnx.Rngs):
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
    def __init__(self, rows: int, columns: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (rows, columns), jnp.float32))


class TransformerBlock(nnx.Module):
    """x += attention(norm(x)); x += conformer(x); x += feed-forward(norm(x)). Length: N."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
        norm = config.norm_kwargs
        self.pre_norm = Identity() if config.remove_norms else LayerNorm(dim, norm)
        self.self_attn = SelfAttention(dim, config, rngs=rngs)
        self.ff_norm = Identity() if config.remove_norms else LayerNorm(dim, norm)
        self.ff = FeedForward(dim, config.ff_kwargs, rngs=rngs)
        self.conformer = Conformer(dim, norm, rngs=rngs) if config.conformer else None

    def __call__(
        self,
        x: Float[Array, "B N D"],
        angles: Float[Array, "N R"] | None,
        length: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B N D"]:
        x = x + self.self_attn(self.pre_norm(x), angles, length)
        if self.conformer is not None:
            x = x + self.conformer(x, length)
        return x + self.ff(self.ff_norm(x), length)


class Transformer(nnx.Module):
    """Blocks without a mask: every latent of a file attends to all of them. Length: N."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
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

    def embed(self, x: Float[Array, "B N D"]) -> tuple[Float[Array, "B N D"], Float[Array, "N R"] | None]:
        """The input with its positions added, and the angles of the rotary embedding."""
        size = x.shape[1]
        if self.pos_emb is not None:
            x = x + self.pos_emb(size).astype(x.dtype)
        return x, None if self.rotary_pos_emb is None else self.rotary_pos_emb.angles(size)


def _frequencies(count: int) -> Float[np.ndarray, "F"]:
    """10000^(−i/count). XLA's float32 power is off by several roundings, and positions multiply that."""
    return np.float32(10_000) ** -(np.arange(count, dtype=np.float32) / np.float32(count))


def _unit(x: Float[Array, "B N H D"]) -> Float[Array, "B N H D"]:
    """x/‖x‖ over a head; zeros stay zero, with a zero gradient."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / jnp.where(square > 0, jnp.maximum(norm, 1e-12), 1.0)


def _apply(
    layer: Linear | SequenceConv, x: Float[Array, "B N I"], length: Int[Array, "B"] | None
) -> Float[Array, "B N O"]:
    return layer(x, length) if isinstance(layer, SequenceConv) else layer(x)
