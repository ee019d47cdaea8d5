"""The kernels for the tails of residual units: how exact they are, and how fast each way to cut them is.

A unit of 2^20 steps of 128 channels, as at the full rate of a window of 1024 latents, and of 2^17 steps of
256. The truth is the same arithmetic in float32; the kernels hold if they are at most twice as far from it as
XLA's own kernels in bfloat16 are. Where there is no card, they are interpreted, and nothing is timed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from earvae_jax.infer.formulations.fused import tails
from earvae_jax.infer.formulations.fused.weights import SnakeWeights
from earvae_jax.infer.formulations.laid_out import snake_for
from earvae_jax.model.layers import Extent
from tools.card.measured.part import Asked, run
from tools.card.measured.timing import seconds_of

_LEVELS = {128: 1 << 20, 256: 1 << 17}  # channels: steps
_SMALL_LEVELS = {128: 300}
_STEPS, _WRITTEN, _WARPS = (32, 64, 128), (32, 64, 128), (4, 8, 16)
# What registers and shared memory hold, and what a product of the matrix units wants: M·C numbers of float32
# lie in the registers of the warps.
_LEAST_A_THREAD, _MOST_A_THREAD = 32, 64


def measure(asked: Asked) -> dict[str, Any]:
    """A row for each width and way to cut it."""
    interpret = jax.default_backend() != "gpu"
    rows = []
    for channels, steps in (_SMALL_LEVELS if interpret else _LEVELS).items():
        rows += _rows(channels, steps, interpret)
    return {"interpreted": interpret, "rows": rows, "passed": all(row["passed"] for row in rows)}


def tilings(channels: int) -> list[tails.Tiling]:
    """Ways to cut a unit that may be fast, and the one that is used."""
    found = [
        tails.Tiling(steps, written, warps)
        for steps in _STEPS
        for written in _WRITTEN
        for warps in _WARPS
        if _LEAST_A_THREAD <= steps * channels / (32 * warps) <= _MOST_A_THREAD and written <= channels
    ]
    used = tails.TILINGS[channels, 2]
    return [used, *(each for each in found if each != used)]


def _rows(channels: int, steps: int, interpret: bool) -> list[dict[str, Any]]:
    keys = jax.random.split(jax.random.key(0), 3)
    wide, x = (jax.random.normal(key, (1, steps, channels)).astype(jnp.bfloat16) for key in keys[:2])
    pointwise = (jax.random.normal(keys[2], (channels, channels)) / channels**0.5).astype(jnp.bfloat16)
    both = SnakeWeights(jnp.full(channels, 1.1), jnp.full(channels, 0.8))
    unit = tails.Unit(None, both, both, pointwise, jnp.full(channels, 0.3))  # type: ignore[arg-type] # its wide convolution is done
    extent = Extent(jnp.full(1, 3, jnp.int32), jnp.full(1, steps - 5, jnp.int32))

    def plain(wide: Float[Array, "B T C"], x: Float[Array, "B T C"]) -> tuple[Array, Array]:
        kernel = unit.pointwise.astype(x.dtype)
        snake = snake_for(x.dtype)
        product = lax.dot_general(snake(wide, *both), kernel, (((2,), (0,)), ((), ())))
        y = x + (product + unit.bias.astype(x.dtype))
        return y, extent.keep(snake(y, *both))

    with jax.default_matmul_precision("highest"):
        truth = jax.jit(plain)(wide.astype(jnp.float32), x.astype(jnp.float32))
    bound = 2 * _apart(jax.jit(plain)(wide, x), truth)

    def lowered(tiling: tails.Tiling) -> jax.stages.Lowered:
        def one(wide: Float[Array, "B T C"], x: Float[Array, "B T C"]) -> Any:
            return tails.tail(wide, x, unit, both, extent, tiling, length=steps, interpret=interpret)

        return jax.jit(one).lower(wide, x)

    ways = tilings(channels)[: 1 if interpret else None]
    with ThreadPoolExecutor() as threads:
        programs = list(threads.map(_compiled, [lowered(tiling) for tiling in ways]))
    rows = []
    for tiling, program in zip(ways, programs, strict=True):
        row: dict[str, Any] = {"channels": channels, **tiling._asdict(), "used": tiling == ways[0]}
        if isinstance(program, str):
            rows.append({**row, "failed": program, "passed": not row["used"]})
            continue
        row["relative"] = _apart(program(wide, x), truth)
        row |= {"bound": bound, "passed": row["relative"] <= bound}
        rows.append(row if interpret else {**row, "seconds": seconds_of(program, wide, x)})
    return rows


def _compiled(lowered: jax.stages.Lowered) -> Any:
    """The program, or why there is none: a way that needs too much of a card is one."""
    try:
        return lowered.compile()
    except Exception as error:  # noqa: BLE001 - a compiler of kernels raises what it likes
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _apart(ours: Sequence[Array], truth: Sequence[Array]) -> float:
    """‖Δ‖/‖truth‖ of the outputs together; on the device, since there are 10⁸ numbers for every way."""
    pairs = [(a.astype(jnp.float32), b) for a, b in zip(ours, truth, strict=True)]
    off = sum(jnp.sum(jnp.square(a - b)) for a, b in pairs)
    return float(jnp.sqrt(off / sum(jnp.sum(jnp.square(b)) for _, b in pairs)))


if __name__ == "__main__":
    run(measure, __doc__)
