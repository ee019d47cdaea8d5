"""Encoder and decoder with the residual units of their narrow levels as kernels; all else as in the modules.

A level's three units and the activation behind them are computed together, since the last kernel writes
what that activation gives. Units of other widths, and those without snakes, run as they are written.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jaxtyping import Array, Float, PyTree

from earvae_jax.errors import UserError
from earvae_jax.infer.formulations.fused import gpu, tails, tpu
from earvae_jax.infer.formulations.fused.weights import snake_weights, unit_weights
from earvae_jax.infer.formulations.laid_out import (
    LaidOutConv,
    LaidOutConvTranspose,
    cast,
    replaced_convolutions,
    with_short_snakes,
)
from earvae_jax.model.antialias import AntialiasedActivation
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.convolution import upsampled
from earvae_jax.model.layers import Buffer, Conv, Extent, SnakeBeta
from earvae_jax.model.lengths import upsampled_length
from earvae_jax.model.oobleck import Decoder, Encoder, ResidualUnit

_KERNELS = {"gpu": gpu, "tpu": tpu}
# Runs units and the activation behind them: (units, activation, values, extent) -> values. They are zero
# outside the extent, as the convolution behind a level sees them.
_Level = Callable[[Sequence[ResidualUnit], nnx.Module, Float[Array, "B T C"], Extent], Float[Array, "B T C"]]


class FusedFormulation:
    """Residual units as kernels of Pallas; equal to the modules up to rounding.

    Args:
      config: the model's.
      platform: "gpu" or "tpu".
      dtype: type of the activations.
      tails_alone: whether cuDNN computes the wide convolutions, and kernels the rest (`tails`).
      shared_memory: bytes that a program of a GPU's grid may take; None: as many as on an H100.
      interpret: whether to interpret the kernels, on any device, slowly: for tests.

    Raises:
      UserError: there are no such kernels for this platform or model.
    """

    compiler_options = None
    free_padding = False

    def __init__(
        self,
        config: ModelConfig,
        platform: str,
        dtype: str,
        *,
        tails_alone: bool = False,
        shared_memory: int | None = None,
        interpret: bool = False,
    ):
        if tails_alone and platform != "gpu":
            raise UserError(
                f"the tails of units are kernels for a GPU, and this is a {platform.upper()}: use auto"
            )
        if platform not in _KERNELS:
            raise UserError(
                f"the fused formulation runs on a GPU or TPU, and this is a {platform.upper()}: use auto"
            )
        self._kernels: Any = tails if tails_alone else _KERNELS[platform]
        self._dtype = jnp.dtype(dtype)
        self._options: dict[str, Any] = {"interpret": interpret}
        self._weights_of: Callable[..., Any] = tails.weights_of if tails_alone else unit_weights
        if self._kernels is gpu:
            self._options["shared_memory"] = shared_memory or gpu.H100_SHARED_MEMORY
        halves = [half for half in (config.encoder, config.decoder) if half.use_snake]
        widths = sorted({width for half in halves for width in half.widths[:-1]})
        taken = [width for width in widths if self._takes(width)]
        if not widths:
            raise UserError("the fused formulation computes snakes, and this model has none: use plain")
        if not taken:
            raise UserError(
                f"there is no kernel for residual units of {_listed(widths)} channels in {dtype} on a "
                f"{platform.upper()}: use auto"
            )
        others = [width for width in widths if width not in taken]
        logging.info(
            "fused: residual units of %s channels run as kernels%s",
            _listed(taken),
            f", those of {_listed(others)} as they are written" if others else "",
        )

    def encoder(self, encoder: Encoder) -> tuple[PyTree, Callable]:
        """Weights and function of the encoder."""
        return self._half(encoder, encode)

    def decoder(self, decoder: Decoder) -> tuple[PyTree, Callable]:
        """Weights and function of the decoder."""
        return self._half(decoder, decode)

    def _half(self, half: Encoder | Decoder, function: Callable) -> tuple[PyTree, Callable]:
        half = replaced_convolutions(half, self._dtype, self._laid_out, LaidOutConvTranspose)
        if self._kernels is not tpu:
            half = with_short_snakes(half, self._dtype)
        graph, weights = nnx.split(half)

        def run(weights: PyTree, x: Float[Array, "B T C"], extent: Extent) -> Float[Array, "B T2 C2"]:
            return function(nnx.merge(graph, weights), x, extent, self._level)

        return nnx.as_pure(weights), run

    def _laid_out(self, conv: Conv, dtype: np.dtype) -> Conv:
        """The kernels of Pallas read weights as [K, I, O], the convolutions of the rest as [O, K, I]."""
        _, inputs, outputs = conv.kernel.shape
        of_unit = inputs == outputs and self._takes(inputs)
        if not of_unit or (self._kernels is tails and conv.width > 1):
            return LaidOutConv(conv, dtype)
        conv.folded_kernel = Buffer(cast(np.asarray(conv.kernel), dtype))
        return conv

    def _takes(self, channels: int) -> bool:
        return self._kernels.takes(channels, self._dtype)

    def _level(
        self,
        units: Sequence[ResidualUnit],
        activation: nnx.Module,
        x: Float[Array, "B T C"],
        extent: Extent,
    ) -> Float[Array, "B T C"]:
        if not (self._takes(x.shape[2]) and isinstance(units[0].layers[0], SnakeBeta)):
            for unit in units:
                x = unit(x, extent)
            return extent.keep(_activated(activation, x, extent))
        snake = snake_weights(activation) if isinstance(activation, SnakeBeta) else None
        weights = [self._weights_of(unit, x.dtype) for unit in units]
        x = self._kernels.run_units(x, weights, snake, extent, **self._options)
        return x if snake is not None else extent.keep(_activated(activation, x, extent))


def encode(
    encoder: Encoder, x: Float[Array, "B T C"], extent: Extent, level: _Level
) -> Float[Array, "B N E"]:
    """Computes what `Encoder` does, its levels by `level`."""
    blocks: list[Any]  # nnx.List does not state the type of its items
    first, *blocks, activation, last = encoder.layers
    x = first(x, extent)
    for block in blocks:
        *units, activate, downsample = block.layers
        x = downsample(level(units, activate, x, extent))
        extent = block.extent_after(extent)
    return last(_activated(activation, x, extent), extent)


def decode(
    decoder: Decoder, x: Float[Array, "B N D"], extent: Extent, level: _Level
) -> Float[Array, "B T C"]:
    """Computes what `Decoder` does, its levels by `level`, each with the activation that begins the next.

    What a transposed convolution gives beyond its window is cut off at the end alone, since each cut copies a
    level. Until then a level begins `lead` steps before the window.
    """
    blocks: list[Any]  # as above
    first, *blocks, activation, last, ending = decoder.layers
    before, *behind = [*(block.layers[0] for block in blocks), activation]
    lead, length = 0, x.shape[1]
    x = extent.keep(_activated(before, first(x, extent), extent))
    for block, after in zip(blocks, behind, strict=True):
        _, upsample, *units = block.layers
        stride, lead = block.stride, lead * block.stride
        if isinstance(upsample, LaidOutConvTranspose):
            bias = None if upsample.bias is None else upsample.bias[...]
            x = upsampled(x, upsample.outputs_first[...], bias, stride=stride, kernel_axes="OWI")
            lead, length = lead + upsample.padding, upsampled_length(length, stride)
        else:
            x, length = upsample(x), length * stride
        extent = block.extent_after(extent)
        inside = Extent(lead + jnp.maximum(extent.start, 0), lead + jnp.minimum(extent.stop, length))
        x = level(units, after, x, inside)
    return ending(last(x)[:, lead : lead + length])


def _activated(activation: Any, x: Float[Array, "B T C"], extent: Extent) -> Float[Array, "B T C"]:
    return activation(x, extent) if isinstance(activation, AntialiasedActivation) else activation(x)


def _listed(widths: Sequence[int]) -> str:
    return " and ".join(map(str, widths))
