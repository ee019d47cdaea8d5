"""Finds the largest batch or crop that fits, with few compilations."""

import dataclasses
from collections.abc import Callable, Mapping

_MOST = 1 << 20
_COMPILATIONS = 6  # memory is nearly a line, so three are enough as a rule


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest size that fits."""

    size: int  # 0 if not even the smallest does
    compiled: tuple[int, ...]  # the sizes that were compiled to find it


def largest(limit: int, memory: Callable[[int], int | None], *, now: int, step: int, least: int) -> Largest:
    """The largest multiple of `step` whose memory is at most `limit`.

    Memory grows almost as a line: two sizes give the line, and the size at its end is compiled to see whether
    it is right. It is corrected until a compiled size fits and the line says that no larger one does.

    Args:
      memory: compiles for a size and gives its bytes; None if the compiler refuses it without a figure.
      now: the size to begin with.
      least: the smallest size that is allowed, a multiple of `step`.
    """
    known: dict[int, int | None] = {}
    fitting, too_large = 0, _MOST
    size: int | None = max(least, now - now % step)
    while size is not None and len(known) < _COMPILATIONS:
        needed = known[size] = memory(size)
        if needed is not None and needed <= limit:
            fitting = max(fitting, size)
        else:
            too_large = min(too_large, size)
        size = _next(limit, known, step, fitting, too_large, least)
    return Largest(fitting, tuple(known))


def _next(
    limit: int, known: Mapping[int, int | None], step: int, fitting: int, too_large: int, least: int
) -> int | None:
    """The size to compile next; None if the answer is known."""
    if too_large - max(fitting, least - step) <= step:
        return None
    points = sorted((size, needed) for size, needed in known.items() if needed is not None)
    if len(points) < 2:
        guess = 2 * fitting if too_large == _MOST else (fitting + too_large) // 2
    else:
        (first, at_first), (second, at_second) = points[-2:]
        slope = max(at_second - at_first, 1) / (second - first)
        guess = int(first + (limit - at_first) / slope)
    guess = min(guess // step * step, too_large - step)
    if guess <= fitting:
        return None if fitting else least
    return max(guess, least)
