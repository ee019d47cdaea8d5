"""The layers of the transformer that see one latent at a time, or a few neighbours."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from earvae_jax.model.config import FeedForwardConfig, NormConfig
from earvae_jax.model.convolution import conv1d
from earvae_jax.model.layers import Buffer, Identity, uniform_param

_CONFORMER_WIDTH = 17


class LayerNorm(nnx.Module):
    """(x − mean)/√(var + eps) · gamma + beta over the last axis.

    beta is applied even if it is not trained: the published files hold it as a constant.
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


class HeadNorm(nnx.Module):
    """LayerNorm over the width of a head, with the parameter names of `torch.nn.LayerNorm`."""

    def __init__(self, dim: int):
        self.weight = nnx.Param(jnp.ones(dim, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(dim, jnp.float32))

    def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return centred / jnp.sqrt(variance + 1e-6) * self.weight[...] + self.bias[...]


class Linear(nnx.Module):
    """x·weight + bias over the last axis, initialised as torch does."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, zero_init: bool = False, rngs: nnx.Rngs | None
    ):
        bound = 0.0 if zero_init else inputs**-0.5
        self.weight = uniform_param((inputs, outputs), bound, rngs)
        self.bias = uniform_param((outputs,), bound, rngs) if bias else None

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S O"]:
        y = x @ self.weight[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class SequenceConv(nnx.Module):
    """A convolution over the latents without weight norm, of odd width. Length: N."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        *,
        bias: bool = True,
        depthwise: bool = False,
        zero_init: bool = False,
        rngs: nnx.Rngs | None,
    ):
        self.depthwise = depthwise
        fan_in = 1 if depthwise else inputs
        bound = 0.0 if zero_init else (fan_in * width) ** -0.5
        shape = (width, fan_in, outputs)
        self.weight = uniform_param(shape, bound, rngs)
        self.bias = uniform_param((outputs,), bound, rngs) if bias else None

    def __call__(
        self, x: Float[Array, "B N I"], length: Int[Array, " B"] | None = None
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
    """a · silu(b), where one linear layer maps x to a ‖ b."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs | None):
        self.proj = Linear(inputs, 2 * outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S O"]:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.silu(gate)


class FeedForward(nnx.Module):
    """A gated or plain inner layer, and an output layer that starts at zero. Length: N."""

    def __init__(self, dim: int, config: FeedForwardConfig, *, rngs: nnx.Rngs | None):
        self.glu = config.glu
        inner, bias = dim * config.mult, not config.no_bias
        first: GatedLinear | nnx.List
        if config.glu:
            first = GatedLinear(dim, inner, rngs=rngs)
        elif config.use_conv:
            # The published code has the layer at index 1 of a list of its own.
            first = nnx.List(
                [Identity(), SequenceConv(dim, inner, config.conv_kernel_size, bias=bias, rngs=rngs)]
            )
        else:
            first = nnx.List([Identity(), Linear(dim, inner, bias=bias, rngs=rngs)])
        last: Linear | SequenceConv
        if config.use_conv:
            last = SequenceConv(inner, dim, config.conv_kernel_size, bias=bias, zero_init=True, rngs=rngs)
        else:
            last = Linear(inner, dim, bias=bias, zero_init=True, rngs=rngs)
        self.ff: nnx.List[Any] = nnx.List([first, Identity(), last])

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, " B"] | None = None
    ) -> Float[Array, "B N D"]:
        first, _, last = self.ff
        inner = first(x) if self.glu else jax.nn.silu(_apply(first[1], x, length))
        return _apply(last, inner, length)


class Conformer(nnx.Module):
    """Pointwise convolution, gate, depthwise convolution, norm, SiLU, pointwise convolution. Length: N."""

    def __init__(self, dim: int, norm: NormConfig, *, rngs: nnx.Rngs | None):
        self.in_norm = LayerNorm(dim, norm)
        self.pointwise_conv = SequenceConv(dim, dim, 1, bias=False, rngs=rngs)
        self.glu = GatedLinear(dim, dim, rngs=rngs)
        self.depthwise_conv = SequenceConv(dim, dim, _CONFORMER_WIDTH, bias=False, depthwise=True, rngs=rngs)
        self.mid_norm = LayerNorm(dim, norm)
        self.pointwise_conv_2 = SequenceConv(dim, dim, 1, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], length: Int[Array, " B"] | None = None
    ) -> Float[Array, "B N D"]:
        x = self.glu(self.pointwise_conv(self.in_norm(x)))
        x = self.mid_norm(self.depthwise_conv(x, length))
        return self.pointwise_conv_2(jax.nn.silu(x))


def _apply(
    layer: Linear | SequenceConv, x: Float[Array, "B N I"], length: Int[Array, " B"] | None
) -> Float[Array, "B N O"]:
    return layer(x, length) if isinstance(layer, SequenceConv) else layer(x)
