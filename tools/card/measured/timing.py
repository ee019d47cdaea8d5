"""Times programs that are on the device, from its inputs there to its outputs there."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

_LEAST = 0.05  # seconds of a turn: short programs run several times


def seconds_of(function: Callable[..., Any], *arguments: Any, turns: int = 5) -> float:
    """The median time of one call; the first one, which may compile, is not counted."""
    jax.block_until_ready(function(*arguments))
    once = _turn(function, arguments, 1)
    calls = max(1, min(100, int(_LEAST / max(once, 1e-6))))
    return statistics.median(_turn(function, arguments, calls) for _ in range(turns))


def _turn(function: Callable[..., Any], arguments: tuple[Any, ...], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        result = function(*arguments)
    jax.block_until_ready(result)  # the device runs one call after the other
    return (time.perf_counter() - started) / calls
