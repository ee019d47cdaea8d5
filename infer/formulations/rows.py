"""For a TPU: the model's own modules on signals that are cut into rows, which lie side by side as a batch.

libtpu compiles a convolution in a time that grows with the steps of its signal, not with the size of its
batch: one of width 7 over 262 144 steps takes 20 s, and over 64 rows of 4096 one second, on the same cores.
And it keeps a batch's values of one step together, so that a signal in one long row is laid out anew at every
convolution. Before a convolution each row gets the steps of its neighbours that it sees. The arithmetic is
that of the modules.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from earvae_jax.infer.formulations.laid_out import cast, replaced_convolutions
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.convolution import conv1d, phases_of
from earvae_jax.model.layers import Buffer, Conv, Extent
from earvae_jax.model.lengths import (
    downsampled_length,
    latents_of,
    resampling_padding,
    samples_of,
    upsampled_length,
)
from earvae_jax.model.oobleck import Decoder, Encoder

_FEW = 16  # rows that fill a TPU's registers with values of bfloat16, and steps that do
_SHORT = 256  # steps; the widest convolution sees 27 on each side
_LONG = 4096  # steps of a row where there are many: what is seen of neighbours is then next to nothing


def supports(config: ModelConfig) -> bool:
    """Whether all layers of a config work on rows."""
    halves = (config.encoder, config.decoder)
    return (
        not config.decoder.use_nearest_upsample
        and not any(half.antialias_activation for half in halves)
        # Rows have a multiple of `_FEW` steps, which a larger power of two need not divide.
        and not any(stride % (2 * _FEW) == 0 for half in halves for stride in half.strides)
    )


def rows_of(steps: int) -> int:
    """Into how many rows a signal is cut: a power of two, so that rows begin at multiples of a stride."""
    rows = 1
    while steps % (2 * rows * _FEW) == 0 and steps // (2 * rows) >= (_SHORT if rows < _FEW else _LONG):
        rows *= 2
    return rows


class RowsFormulation:
    """Runs the model's own modules on rows, with kernels in the type of the activations."""

    compiler_options = None
    free_padding = False

    def __init__(self, config: ModelConfig, dtype: str):
        self._config, self._dtype = config, jnp.dtype(dtype)

    def encoder(self, encoder: Encoder) -> tuple[PyTree, Any]:
        """Weights and function of the encoder."""
        strides = self._config.encoder.strides
        return self._half(encoder, lambda steps: latents_of(steps, strides))

    def decoder(self, decoder: Decoder) -> tuple[PyTree, Any]:
        """Weights and function of the decoder."""
        strides = self._config.decoder.strides
        return self._half(decoder, lambda steps: samples_of(steps, strides))

    def _half(self, half: Encoder | Decoder, length_after: Any) -> tuple[PyTree, Any]:
        half = replaced_convolutions(half, self._dtype, _RowsConv, _RowsConvTranspose)
        graph, weights = nnx.split(half)

        def function(weights: PyTree, x: Float[Array, "B T C"], extent: Extent) -> Float[Array, "B T2 C2"]:
            batch, steps, _ = x.shape
            rows = Rows(extent.start, extent.stop, steps, rows_of(steps))
            merged: Any = nnx.merge(graph, weights)  # takes `Rows` for the `Extent`
            y = merged(rows.of(x), rows)
            y = y.reshape(batch, -1, y.shape[-1])
            return y[:, : length_after(steps)]  # where a stride is odd, a step less for each level above

        return nnx.as_pure(weights), function


@dataclasses.dataclass(frozen=True)
class Rows:
    """An `Extent` of signals in rows.

    Attributes:
      start, stop: the positions of each signal that exist in its file.
      steps: of a signal.
      count: rows of a signal.
    """

    start: Int[Array, " B"]
    stop: Int[Array, " B"]
    steps: int
    count: int

    def of(self, x: Float[Array, "some T C"]) -> Float[Array, "rows M C"]:
        """Signals, whole or in other rows, in these."""
        return x.reshape(len(self.start) * self.count, self.steps // self.count, x.shape[-1])

    def keep(self, x: Float[Array, "rows M C"]) -> Float[Array, "rows M C"]:
        """Sets what does not exist to zero, NaN included."""
        row = jnp.arange(len(x), dtype=jnp.int32) % self.count
        start, stop = (jnp.repeat(limit, self.count) - row * x.shape[1] for limit in (self.start, self.stop))
        return Extent(start, stop).keep(x)

    def downsampled(self, stride: int) -> "Rows":
        """The rows after a strided convolution."""
        steps = self.steps // stride
        stop = downsampled_length(self.stop, stride)
        return Rows(self.start // stride, stop, steps, self._count_for(steps))

    def upsampled(self, stride: int, *, nearest: bool = False) -> "Rows":
        """The rows after a transposed convolution: steps·stride, of which an odd stride lacks the last."""
        assert not nearest
        steps = self.steps * stride
        stop = upsampled_length(self.stop, stride)
        return Rows(self.start * stride, stop, steps, rows_of(steps))

    def _count_for(self, steps: int) -> int:
        """As many rows as before, unless they are too short or long: other rows are laid out anew."""
        row = steps // self.count
        fits = steps % (self.count * _FEW) == 0 and 2 * _SHORT <= row <= 2 * _LONG
        return self.count if fits else rows_of(steps)


class _RowsConv(Conv):
    """A folded convolution on rows."""

    def __init__(self, conv: Conv, dtype: np.dtype):
        self.width, self.stride = conv.width, conv.stride
        self.dilation, self.padding = conv.dilation, conv.padding
        self.is_folded = True
        self.folded_kernel = Buffer(cast(self._as_convolution(conv), dtype))
        self.bias = None if conv.bias is None else nnx.Param(cast(np.asarray(conv.bias[...]), dtype))

    @staticmethod
    def _as_convolution(conv: Conv) -> Float[np.ndarray, "K I O"]:
        return np.asarray(conv.kernel)

    def __call__(self, x: Float[Array, "rows M I"], extent: Any = None) -> Float[Array, "rows2 M2 O"]:
        if self.width == 1:
            return conv1d(x, self.kernel, self._bias())
        assert isinstance(extent, Rows) and isinstance(self.padding, int)
        x = extent.keep(x)
        after = self.dilation * (self.width - 1) - self.padding - self.stride + 1
        x = _with_neighbours(x, extent.count, self.padding, after)
        y = conv1d(x, self.kernel, self._bias(), stride=self.stride, dilation=self.dilation)
        return y if self.stride == 1 else extent.downsampled(self.stride).of(y)

    def _bias(self) -> Float[Array, " O"] | None:
        return None if self.bias is None else self.bias[...]


class _RowsConvTranspose(_RowsConv):
    """A folded transposed convolution on rows; its kernel is that of the phases."""

    @staticmethod
    def _as_convolution(conv: Conv) -> Float[np.ndarray, "K I O"]:
        return phases_of(np.asarray(conv.kernel), conv.stride)

    def __call__(self, x: Float[Array, "rows M I"], extent: Any = None) -> Float[Array, "rows2 M2 O"]:
        assert isinstance(extent, Rows) and self.width == 2 * self.stride
        after = extent.upsampled(self.stride)
        # Cut into the rows of the result beforehand, where the signal is small.
        x = dataclasses.replace(extent, count=after.count).of(extent.keep(x))
        # A row of M steps becomes M + 1 blocks of `stride`, and half a block goes at either end.
        y = conv1d(_with_neighbours(x, after.count, 1, 1), self.kernel)
        rows, blocks, _ = y.shape
        y = y.reshape(rows, blocks * self.stride, -1)
        cut = resampling_padding(self.stride)
        y = lax.slice_in_dim(y, cut, cut + x.shape[1] * self.stride, axis=1)
        return y if self.bias is None else y + self.bias[...]


def _with_neighbours(
    x: Float[Array, "rows M C"], count: int, before: int, after: int
) -> Float[Array, "rows M2 C"]:
    """Rows with the last steps of the row before them and the first of the one after; zeros at the ends."""
    if count == 1:
        return jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    rows = x.reshape(-1, count, *x.shape[1:])
    left = jnp.pad(rows[:, :-1, x.shape[1] - before :], ((0, 0), (1, 0), (0, 0), (0, 0)))
    right = jnp.pad(rows[:, 1:, :after], ((0, 0), (0, 1), (0, 0), (0, 0)))
    joined = jnp.concatenate([left, rows, right], axis=2)
    return joined.reshape(len(x), before + x.shape[1] + after, -1)
