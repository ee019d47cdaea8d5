"""What follows the wide convolution of a residual unit on a GPU, in one kernel, by Pallas and Triton.

cuDNN computes the wide convolution at the peak of the card, faster than a kernel of Triton can. But the rest
of a unit, a snake, a pointwise convolution, the addition and the next snake, passes over the activation seven
times, and that takes as long. Here it passes four times:

    h, x -> x' = x + pointwise(snake(h)), a' = snake'(x')

with the snake of whatever follows. The last unit of a level writes a' alone. A program of the grid takes M
time steps of all C channels, which it multiplies from its registers. The rounding is that of the modules.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from earvae_jax.infer.formulations.fused.gpu import finish, load, snake_of
from earvae_jax.infer.formulations.fused.weights import SnakeWeights, bias_of, snake_weights
from earvae_jax.infer.formulations.laid_out import row_of, snake_for
from earvae_jax.model.layers import Conv, Extent
from earvae_jax.model.oobleck import ResidualUnit


class Tiling(NamedTuple):
    """How a program of the grid is cut."""

    steps: int  # M, time steps of a program
    written: int  # channels of the output computed at once
    warps: int


# By channels and bytes of a number: the fastest of ten and of eight on an H200, 0.45 and 0.23 ms for 2^20 and
# 2^17 steps. Other widths and float32 were not measured, and stay with cuDNN.
TILINGS = {(128, 2): Tiling(64, 64, 4), (256, 2): Tiling(64, 128, 8)}


class Unit(NamedTuple):
    """A unit whose wide convolution is a module's."""

    wide: Conv
    first: SnakeWeights
    second: SnakeWeights
    pointwise: Float[Array, "C C"]
    bias: Float[Array, " C"]


def takes(channels: int, dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for units of this width."""
    return (channels, jnp.dtype(dtype).itemsize) in TILINGS


def weights_of(unit: ResidualUnit, dtype: jnp.dtype) -> Unit:
    """What `run_units` takes of a unit whose activations are snakes."""
    first, wide, second, pointwise = unit.layers
    kernel = pointwise.kernel[0].astype(dtype)
    return Unit(wide, snake_weights(first), snake_weights(second), kernel, bias_of(pointwise))


def run_units(
    x: Float[Array, "B T C"],
    units: Sequence[Unit],
    after: SnakeWeights | None,
    extent: Extent,
    *,
    interpret: bool = False,
) -> Float[Array, "B T C"]:
    """The units one after the other, then the snake `after`, if there is one; zero outside the extent."""
    extent = Extent(jnp.maximum(extent.start, 0), jnp.minimum(extent.stop, x.shape[1]))
    tiling = TILINGS[x.shape[2], x.dtype.itemsize]
    active = extent.keep(snake_for(x.dtype)(x, *units[0].first))
    for unit, following in itertools.pairwise(units):
        # In rows the next convolution takes whole ones.
        row = row_of(following.wide.dilation, x.dtype)
        length = -(-x.shape[1] // row) * row
        wide = unit.wide(active)
        x, active = tail(wide, x, unit, following.first, extent, tiling, length=length, interpret=interpret)
    last = units[-1]
    return tail(last.wide(active), x, last, after, extent, tiling, length=None, interpret=interpret)[0]


def tail(
    wide: Float[Array, "B T2 C"],
    x: Float[Array, "B T C"],
    unit: Unit,
    after: SnakeWeights | None,
    extent: Extent,
    tiling: Tiling,
    *,
    length: int | None,
    interpret: bool = False,
) -> Sequence[Float[Array, "B T3 C"]]:
    """The unit's output, and its snake with so many steps; without a length the snake alone.

    `wide` is the output of the unit's wide convolution, at least as long as x. Without `after` the snake is
    the output itself.
    """
    batch, steps, channels = x.shape
    weights = [*unit.second, unit.pointwise, unit.bias, *(() if after is None else after)]
    lengths = [steps] if length is None else [steps, length]

    def of_window(length: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, length, channels), lambda tile, window: (window, 0, 0))

    number = pl.BlockSpec((1,), lambda tile, window: (window,))
    whole = [pl.BlockSpec(w.shape, lambda tile, window, rank=w.ndim: (0,) * rank) for w in weights]
    moved = x.size * (2 + len(lengths)) + channels * channels
    return pl.pallas_call(
        functools.partial(_kernel, tiling=tiling, outputs=len(lengths)),
        grid=(pl.cdiv(lengths[-1], tiling.steps), batch),
        in_specs=[number, number, of_window(wide.shape[1]), of_window(steps), *whole],
        out_specs=[of_window(each) for each in lengths],
        out_shape=[jax.ShapeDtypeStruct((batch, each, channels), x.dtype) for each in lengths],
        cost_estimate=pl.CostEstimate(
            flops=2 * channels * x.size, bytes_accessed=moved * x.dtype.itemsize, transcendentals=0
        ),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=1),
        interpret=interpret,
        name=f"unit_tail_{channels}",
    )(extent.start, extent.stop, wide, x, *weights)


def _kernel(start, stop, wide, x, frequency, amplitude, pointwise, bias, *refs, tiling, outputs):
    """One program. `refs` are the following snake, if there is one, and the outputs."""
    length, channels = x.shape
    rows = pl.program_id(0) * tiling.steps + lax.iota(jnp.int32, tiling.steps)
    inside = (rows >= start[0]) & (rows < stop[0])
    middle = load(wide, rows, pl.ds(0, channels), rows < length)
    middle = snake_of(middle, frequency[...], amplitude[...], x.dtype)
    finish(middle, x, pointwise, bias, refs[:-outputs], refs[-outputs:], rows, inside, columns=tiling.written)
