"""The residual units of a level on a GPU, in one kernel each, by Pallas and Triton.

A kernel multiplies tensors as they come from memory. So it takes the activated input and writes the
activated output: a unit reads x and a = snake(x), and writes x' = x + pointwise(snake(wide(a))) and a' =
snake'(x'), with the snake of whatever follows: the next unit, or the layer behind the level. The last unit
of a level writes a' alone. That makes four passes over the activation, three for the last unit, where the
plain program makes nine. A kernel that takes x alone would make two. But Triton cannot shift by rows what
it holds, so each of the seven taps would compute the first snake again, and that costs as much as the
products.

A program of the grid computes M time steps of all C channels:

    sum [M, C] float32, registers     the wide convolution: 7·C/K products [M, K] × [K, C] of the rows of a
                                      at t + (tap − 3)·dilation, zero outside the file, and a part of the
                                      kernel; both come to shared memory some products ahead
    middle [M, C], registers          the second snake of the sum, in the type of the activations
    y [M, N] float32, C/N times       middle × pointwise [C, N], plus x: written, and its snake

The weights of a unit are larger than shared memory (8·C² numbers: 262 kB at 128 channels in bfloat16), so
every program reads them once from the L2 cache: M is as large as the registers allow, since that divides
this traffic. The wider C, the smaller M, and at 512 channels 64 steps would read 4 MB of weights. Levels
wider than 256 stay with XLA's convolutions: arithmetic limits them, not memory. `TILINGS` are those that an
H100 takes without spilling registers, or with a few of them once in a program. An H200 took 1.7 times as long
for a level of 128 channels as with cuDNN and XLA, and 0.84 at 256 (docs/performance.md): `tails` are the
default.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from earvae_jax.infer.formulations.fused.weights import (
    SnakeWeights,
    UnitWeights,
    cost_of_unit,
    precision_of,
    snake_in_kernel,
)
from earvae_jax.infer.formulations.laid_out import snake_for
from earvae_jax.model.layers import Extent
from earvae_jax.model.oobleck import RESIDUAL_WIDTH
from earvae_jax.model.snake import short_sin_squared, sin_squared_in_kernels


class Tiling(NamedTuple):
    """How a program of the grid is cut."""

    steps: int  # M, time steps of a program
    taken: int  # K, channels of the input multiplied at once
    written: int  # N, channels of the output computed at once
    warps: int

    def stages(self, channels: int, size: int, shared_memory: int) -> int:
        """Products whose operands, numbers of `size` bytes, are in shared memory at once."""
        return min(4, shared_memory // (size * self.taken * (self.steps + channels)))


H100_SHARED_MEMORY = 232_448  # bytes that a program of the grid may take
# By channels and bytes of a number. Registers and shared memory of each: docs/performance.md.
TILINGS = {
    (16, 2): Tiling(256, 16, 16, 8),
    (32, 2): Tiling(256, 32, 32, 8),
    (64, 2): Tiling(256, 64, 64, 8),
    (128, 2): Tiling(256, 64, 64, 8),
    (256, 2): Tiling(128, 64, 64, 16),
    (16, 4): Tiling(256, 16, 16, 8),
    (32, 4): Tiling(256, 32, 32, 8),
    (64, 4): Tiling(256, 32, 64, 8),
    (128, 4): Tiling(128, 32, 64, 8),
}


def takes(channels: int, dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for units of this width."""
    return (channels, jnp.dtype(dtype).itemsize) in TILINGS


def run_units(
    x: Float[Array, "B T C"],
    units: Sequence[UnitWeights],
    after: SnakeWeights | None,
    extent: Extent,
    *,
    shared_memory: int = H100_SHARED_MEMORY,
    interpret: bool = False,
) -> Float[Array, "B T C"]:
    """The units one after the other, then the snake `after`, if there is one; zero outside the extent."""
    run = functools.partial(run_unit, shared_memory=shared_memory, interpret=interpret)
    extent = Extent(jnp.maximum(extent.start, 0), jnp.minimum(extent.stop, x.shape[1]))
    active = snake_for(x.dtype)(x, *units[0].first)
    for unit, following in itertools.pairwise(units):
        x, active = run(active, x, unit, following.first, extent, both=True)
    return run(active, x, units[-1], after, extent, both=False)[0]


def run_unit(
    active: Float[Array, "B T C"],
    x: Float[Array, "B T C"],
    unit: UnitWeights,
    after: SnakeWeights | None,
    extent: Extent,
    *,
    both: bool,
    shared_memory: int,
    interpret: bool,
) -> Sequence[Float[Array, "B T C"]]:
    """The unit's output and its snake if `both`. Else the snake alone, or the output where none follows."""
    batch, length, channels = x.shape
    size = x.dtype.itemsize
    tiling = TILINGS[channels, size]
    stages = tiling.stages(channels, size, shared_memory)
    weights = [unit.wide.reshape(-1, channels), unit.wide_bias, *unit.second, unit.pointwise, unit.bias]
    weights += [] if after is None else [*after]
    of_window = pl.BlockSpec((None, length, channels), lambda tile, window: (window, 0, 0))
    number = pl.BlockSpec((1,), lambda tile, window: (window,))
    whole = [pl.BlockSpec(w.shape, lambda tile, window, rank=w.ndim: (0,) * rank) for w in weights]
    outputs = 2 if both else 1
    kernel = functools.partial(_kernel, dilation=unit.dilation, tiling=tiling, outputs=outputs)
    return pl.pallas_call(
        kernel,
        grid=(pl.cdiv(length, tiling.steps), batch),
        in_specs=[number, number, of_window, of_window, *whole],
        out_specs=[of_window] * outputs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * outputs,
        cost_estimate=cost_of_unit(x, passes=2 + outputs),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=stages),
        interpret=interpret,
        name=f"residual_unit_{channels}",
    )(extent.start, extent.stop, active, x, *weights)


def _kernel(start, stop, active, x, wide, wide_bias, frequency, amplitude, pointwise, bias, *refs, **options):
    """One program. `refs` are the following snake, if there is one, and the outputs."""
    dilation, tiling, outputs = options["dilation"], options["tiling"], options["outputs"]
    channels = x.shape[1]
    dtype, precision = x.dtype, precision_of(x.dtype)
    rows = pl.program_id(0) * tiling.steps + lax.iota(jnp.int32, tiling.steps)

    def add_product(index, total):
        slices = jnp.int32(channels // tiling.taken)
        tap, part = lax.div(index, slices), lax.rem(index, slices)
        times = rows + (tap - RESIDUAL_WIDTH // 2) * dilation
        inside = (times >= start[0]) & (times < stop[0])
        values = load(active, times, pl.ds(part * tiling.taken, tiling.taken), inside)
        kernel = wide[pl.ds(index * tiling.taken, tiling.taken), :]
        return total + _dot(values, kernel, precision)

    products = RESIDUAL_WIDTH * channels // tiling.taken
    total = lax.fori_loop(0, products, add_product, jnp.zeros((tiling.steps, channels), jnp.float32))
    middle = snake_of(total + wide_bias[...][None], frequency[...], amplitude[...], dtype)
    inside = (rows >= start[0]) & (rows < stop[0])
    finish(middle, x, pointwise, bias, refs[:-outputs], refs[-outputs:], rows, inside, columns=tiling.written)


def finish(
    middle: Any,
    x: Any,
    pointwise: Any,
    bias: Any,
    following: Sequence[Any],
    written: Sequence[Any],
    rows: Any,
    inside: Any,
    *,
    columns: int,
) -> None:
    """The end of a unit in a kernel: the pointwise convolution of `middle` [M, C], the addition of x.

    Of so many columns at a time. `written` are the output, if there are two, and its snake: what follows is a
    convolution, which sees zeros outside the file.
    """
    length, channels = x.shape
    dtype, precision = x.dtype, precision_of(x.dtype)
    for first in range(0, channels, columns):
        part = pl.ds(first, columns)
        y = _dot(middle, pointwise[:, part], precision) + bias[part][None]
        y = (y + load(x, rows, part, rows < length).astype(jnp.float32)).astype(dtype)
        if len(written) == 2:
            _store(written[0], rows, part, y)
        if following:  # of the rounded output, as the modules compute it
            frequency, amplitude = (each[part] for each in following)
            y = snake_of(y, frequency, amplitude, dtype)
        _store(written[-1], rows, part, jnp.where(_wide(inside, part), y, jnp.zeros((), dtype)))


def snake_of(x: Any, frequency: Any, amplitude: Any, dtype: jnp.dtype) -> Float[Array, "M C"]:
    """The snake of a tile in a kernel, in this type."""
    sine = short_sin_squared if dtype == jnp.bfloat16 else sin_squared_in_kernels
    return snake_in_kernel(x, frequency, amplitude, sine=sine).astype(dtype)


def _dot(left: Float[Array, "M K"], right: Float[Array, "K N"], precision: Any) -> Float[Array, "M N"]:
    return jnp.dot(left, right, precision=precision, preferred_element_type=jnp.float32)


def load(ref: Any, rows: Array, columns: Any, mask: Array) -> Float[Array, "M N"]:
    """Some columns of some rows of a window, zero where the mask is false: nothing is read there."""
    # Clipped since an interpreter reads before it masks, and takes negative rows from the end.
    rows = jnp.clip(rows, 0, ref.shape[0] - 1)
    return triton.load(_at(ref, rows, columns), mask=_wide(mask, columns), other=jnp.zeros((), ref.dtype))


def _store(ref, rows, columns, values):
    triton.store(_at(ref, rows, columns), values, mask=_wide(rows < ref.shape[0], columns))


def _at(ref, rows, columns):
    return ref.at[rows[:, None], columns.start + lax.iota(jnp.int32, columns.size)[None]]


def _wide(mask, columns):
    return jnp.broadcast_to(mask[:, None], (len(mask), columns.size))
