"""A residual unit on a TPU, in one kernel, by Pallas and Mosaic.

A kernel reads x once and writes x' = x + pointwise(snake(wide(snake(x)))) once, where the plain program
makes nine passes over the activation. The last unit of a level writes the snake of x' that follows in place
of x'.

A program of the grid computes M time steps of all C channels, while Mosaic brings the tile of the next. In
the core's memory (VMEM) lie

    x [M, C], and [HALO, C] of either side     what the seven taps see; twice, with the next program's
    snake(x) [HALO + M + HALO, C] float32      zero outside the file. A tap takes M rows of it, from row
                                               HALO + (tap − 3)·dilation: float32, since rows of 32 bits may
                                               begin anywhere, and those of 16 bits lie in pairs
    the kernels [7, C, C] and [C, C]           262 kB at 128 channels in bfloat16, 4.2 MB at 512
    the sum, the middle and x', [M, C]

The matrix unit multiplies in the type of the activations and sums in float32. At 1024 channels the kernels
alone take 17 MB, and arithmetic is the limit: such levels stay with XLA's convolutions. None of this ran on
a TPU.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array, Float

from earvae_jax.infer.formulations.fused.weights import (
    SnakeWeights,
    UnitWeights,
    cost_of_unit,
    precision_of,
    snake_in_kernel,
)
from earvae_jax.model.layers import Extent
from earvae_jax.model.oobleck import RESIDUAL_WIDTH

HALO = 32  # steps of either side that a program sees: at least 3·dilation, and whole tiles of 16-bit numbers
STEPS = {128: 512, 256: 512, 384: 256, 512: 256}  # M, by channels: whole lanes of 128
_VMEM = 64 << 20  # bytes that a kernel may take; a v5e's core has twice as many


def passes(channels: int) -> float:
    """How often a unit reads or writes its activation, with what tiles share."""
    return 2 + 2 * HALO / STEPS[channels]


def takes(channels: int, dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for units of this width."""
    return channels in STEPS


def run_units(
    x: Float[Array, "B T C"],
    units: Sequence[UnitWeights],
    after: SnakeWeights | None,
    extent: Extent,
    *,
    interpret: bool = False,
) -> Float[Array, "B T C"]:
    """The units one after the other, then the snake `after`, if there is one; zero outside the extent."""
    for unit in units[:-1]:
        x = run_unit(x, unit, None, extent, last=False, interpret=interpret)
    return run_unit(x, units[-1], after, extent, last=True, interpret=interpret)


def run_unit(
    x: Float[Array, "B T C"],
    unit: UnitWeights,
    after: SnakeWeights | None,
    extent: Extent,
    *,
    last: bool,
    interpret: bool,
) -> Float[Array, "B T C"]:
    """A unit's output, or the snake `after` of it; zero outside the extent if it is the `last` of a level."""
    batch, length, channels = x.shape
    steps = STEPS[channels]
    halos, count = steps // HALO, pl.cdiv(length, HALO)

    def tile(window, place):
        return window, place, 0

    def before(window, place):
        return window, jnp.maximum(place * halos - 1, 0), 0

    def behind(window, place):
        return window, jnp.minimum((place + 1) * halos, count - 1), 0

    snakes = [*unit.first, *unit.second, *(after or ())]
    vectors = jnp.stack([unit.wide_bias, unit.bias, *snakes])
    numbers = pl.BlockSpec(memory_space=tpu.SMEM)
    once = pl.Buffered(1)
    return pl.pallas_call(
        functools.partial(_kernel, dilation=unit.dilation, length=length, last=last),
        grid=(batch, pl.cdiv(length, steps)),
        in_specs=[
            numbers,
            numbers,
            pl.BlockSpec((None, HALO, channels), before),
            pl.BlockSpec((None, steps, channels), tile),
            pl.BlockSpec((None, HALO, channels), behind),
            pl.BlockSpec(unit.wide.shape, lambda *_: (0, 0, 0), pipeline_mode=once),
            pl.BlockSpec(unit.pointwise.shape, lambda *_: (0, 0), pipeline_mode=once),
            pl.BlockSpec(vectors.shape, lambda *_: (0, 0), pipeline_mode=once),
        ],
        out_specs=pl.BlockSpec((None, steps, channels), tile),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[tpu.VMEM((HALO + steps + HALO, channels), jnp.float32)],
        cost_estimate=cost_of_unit(x, passes=passes(channels)),
        compiler_params=tpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM
        ),
        interpret=interpret,
        name=f"residual_unit_{channels}",
    )(extent.start, extent.stop, x, x, x, unit.wide, unit.pointwise, vectors)


def _kernel(start, stop, before, x, behind, wide, pointwise, vectors, out, active, *, dilation, length, last):
    window, place = pl.program_id(0), pl.program_id(1)
    steps, dtype = x.shape[0], x.dtype
    precision = precision_of(dtype)
    wide_bias, bias, *snakes = (vectors[index] for index in range(vectors.shape[0]))
    first, second, after = snakes[:2], snakes[2:4], snakes[4:]
    low, high = jnp.maximum(start[window], 0), jnp.minimum(stop[window], length)

    def inside(values, begin):
        """The values of a part of the tile that begins at this row of `active`; zero outside the file."""
        times = place * steps - HALO + begin + lax.broadcasted_iota(jnp.int32, values.shape, 0)
        return jnp.where((times >= low) & (times < high), values, jnp.zeros((), values.dtype))

    begin = 0
    for part in (before, x, behind):
        size = part.shape[0]
        active[pl.ds(begin, size), :] = inside(snake_in_kernel(part[...], *first), begin)
        begin += size
    total = jnp.zeros(x.shape, jnp.float32)
    for tap in range(RESIDUAL_WIDTH):
        seen = active[pl.ds(HALO + (tap - RESIDUAL_WIDTH // 2) * dilation, steps), :].astype(dtype)
        total += jnp.dot(seen, wide[tap], precision=precision, preferred_element_type=jnp.float32)
    middle = snake_in_kernel(total + wide_bias[None], *second).astype(dtype)
    y = jnp.dot(middle, pointwise[...], precision=precision, preferred_element_type=jnp.float32)
    y = (x[...].astype(jnp.float32) + y + bias[None]).astype(dtype)
    if after:  # of the rounded output, as the modules compute it
        y = snake_in_kernel(y, *after).astype(dtype)
    out[...] = inside(y, HALO) if last else y
