"""Cutting a file into windows of a few fixed sizes whose kept parts are exact and cover the file.

A window holds `size` latents, or their samples. Where the file goes on beyond it, the latents next to the
edge lack a part of what they see and are not kept: `context` of them on each side. Where the file itself ends
at the edge, all are kept.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from earvae_jax.infer.receptive_field import Reach

# Each a multiple of the next, so that any length is covered with little left over. In seconds of 44.1 kHz
# music about 24, 6 and 1.5.
WINDOW_SIZES = (1024, 256, 64)
# What a window costs beside its latents, in latents: reading the weights and starting the program.
_OVERHEAD = 8


class Window(NamedTuple):
    """A window of a file, in latents."""

    start: int  # first latent in the window
    size: int  # latents in the window, those behind the end of the file included
    keep_from: int  # first latent kept, counted in the file
    keep_to: int  # one behind the last latent kept


def plan_windows(latents: int, sizes: Sequence[int], context: Reach) -> list[Window]:
    """Windows in order whose kept parts cover 0 … latents without a gap or an overlap.

    Raises:
      ValueError: a window size that keeps nothing.
    """
    shortest = context.left + context.right + 1
    if min(sizes) < shortest:
        raise ValueError(f"a window of {min(sizes)} latents keeps none; it needs at least {shortest}")
    sizes = tuple(sorted(sizes))
    largest = sizes[-1]
    windows: list[Window] = []
    kept = 0
    while kept < latents:
        start = max(0, kept - context.left)
        rest = latents - start
        # Far from the end the largest size is best; near it the cheapest mix is searched.
        size = largest if rest > 4 * largest else _cheapest(rest, sizes, sum(context))[1]
        keep_to = latents if size >= rest else start + size - context.right
        windows.append(Window(start, size, kept, keep_to))
        kept = keep_to
    return windows


@functools.lru_cache(maxsize=4096)
def _cheapest(rest: int, sizes: tuple[int, ...], overlap: int) -> tuple[int, int]:
    """The least cost of covering `rest` latents from the start of a window, and the first window's size."""
    options = []
    for size in sizes:
        cost = size + _OVERHEAD
        if size < rest:
            cost += _cheapest(rest - size + overlap, sizes, overlap)[0]
        options.append((cost, size))
        if size >= rest:
            break
    return min(options)
