"""The fused residual units against the modules: how exact they are, and what they take.

A level is three units, dilated 1, 3 and 9, and the snake behind them. The truth is the modules in float32 at
its highest precision. The kernels hold if they are at most twice as far from it as the modules in the same
format are, plus 1e-6. Where there is no card, the kernels are interpreted, and nothing is timed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from earvae_jax.infer.engine.compiled import DTYPES
from earvae_jax.infer.formulations.fused import gpu, tpu
from earvae_jax.infer.formulations.fused.weights import snake_weights, unit_weights
from earvae_jax.model.layers import Extent, SnakeBeta, folded
from earvae_jax.model.oobleck import DILATIONS, ResidualUnit
from tools.card.measured.part import Asked, distances, run
from tools.card.measured.timing import seconds_of

_STEPS = 1 << 20  # of the level that is timed: those of a window of 1024 latents at the full rate
_CHECKED = 5000  # steps of the level that is compared: no multiple of a kernel's tiles
_SMALL = 300
_FLOOR = 1e-6
_WIDTHS = {"gpu": (64, 128, 256), "tpu": (128, 256, 512)}
_DTYPES = {"gpu": ("bfloat16", "tf32"), "tpu": ("bfloat16", "float32")}

Level = Callable[[Float[Array, "B T C"]], Float[Array, "B T C"]]


def measure(asked: Asked) -> dict[str, Any]:
    """A row for each width and format."""
    platform = jax.default_backend()
    interpret = platform not in _WIDTHS
    widths = (16,) if interpret else _WIDTHS[platform]
    rows = []
    for dtype in _DTYPES.get(platform, ("bfloat16", "float32")):
        for width in widths:
            if _kernels().takes(width, jnp.dtype(DTYPES[dtype][0])):
                rows.append({"dtype": dtype, "channels": width, **_row(width, dtype, interpret)})
    return {"interpreted": interpret, "rows": rows, "passed": all(row["passed"] for row in rows)}


def _kernels() -> Any:
    return tpu if jax.default_backend() == "tpu" else gpu


def _row(width: int, dtype: str, interpret: bool) -> dict[str, Any]:
    kind, precision = DTYPES[dtype]
    units, after = _level(width)
    steps = _SMALL if interpret else _CHECKED
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, steps, width)), kind)
    plain = jax.jit(functools.partial(_plain, units, after))
    fused = jax.jit(functools.partial(_fused, units, after, interpret=interpret))
    with jax.default_matmul_precision("highest"):
        truth = np.asarray(
            jax.jit(functools.partial(_plain, units, after))(x.astype(jnp.float32)), np.float64
        )[0]
    with jax.default_matmul_precision(precision or "default"):
        modules = distances(np.asarray(plain(x), np.float64)[0], truth)
        row: dict[str, Any] = {"plain": modules["relative"]}
        try:
            kernels = distances(np.asarray(fused(x), np.float64)[0], truth)
        except Exception as error:  # noqa: BLE001 - a compiler of kernels raises what it likes; other widths go on
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return {**row, "passed": False, "failed": reason[:300]}
        row |= {"fused": kernels["relative"], "largest": kernels["largest"]}
        row["passed"] = bool(row["fused"] <= 2 * row["plain"] + _FLOOR)
        if not interpret:
            long = jnp.asarray(jax.random.normal(jax.random.key(0), (1, _STEPS, width)), kind)
            row |= {"plain_seconds": seconds_of(plain, long), "fused_seconds": seconds_of(fused, long)}
    return row


def _level(width: int) -> tuple[list[ResidualUnit], SnakeBeta]:
    random = np.random.default_rng(0)
    options: dict[str, Any] = {"use_snake": True, "tied": True, "bias": True, "rngs": nnx.Rngs(0)}
    level = nnx.List(
        [*(ResidualUnit(width, dilation, **options) for dilation in DILATIONS), SnakeBeta(width)]
    )
    graph, state = nnx.split(level)
    scale = 1 / np.sqrt(width)
    state = jax.tree.map(lambda a: jnp.asarray(scale * random.uniform(-1, 1, a.shape), a.dtype), state)
    *units, after = folded(nnx.merge(graph, state))
    return units, after  # type: ignore[return-value] # nnx.List does not state the types of its items


def _extent(x: Float[Array, "B T C"]) -> Extent:
    """A file that begins inside the window and ends in it."""
    return Extent(jnp.full(1, 3, jnp.int32), jnp.full(1, x.shape[1] - 5, jnp.int32))


def _plain(units: list[ResidualUnit], after: SnakeBeta, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
    extent = _extent(x)
    for unit in units:
        x = unit(x, extent)
    return extent.keep(after(x))


def _fused(
    units: list[ResidualUnit], after: SnakeBeta, x: Float[Array, "B T C"], *, interpret: bool
) -> Float[Array, "B T C"]:
    weights = [unit_weights(unit, x.dtype) for unit in units]
    options: dict[str, Any] = {"interpret": interpret}
    shared_memory = getattr(jax.local_devices()[0], "shared_memory_per_block_optin", None)
    if shared_memory is not None:  # as the codec asks a GPU
        options["shared_memory"] = shared_memory
    return _kernels().run_units(x, weights, snake_weights(after), _extent(x), **options)


if __name__ == "__main__":
    run(measure, __doc__)
