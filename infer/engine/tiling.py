"""Cutting a file into windows of a few fixed sizes whose kept parts are exact and cover the file.

A window holds `size` latents, or their samples. If the file goes on beyond an edge of the window, the
`context` latents next to the edge lack a part of what they see and are not kept. If the file itself ends at
the edge, all are kept.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from earvae_jax.errors import UserError
from earvae_jax.receptive_field import Reach

# Each is a multiple of the next, so that windows cover any length with little left over. They last about 24,
# 6 and 1.5 seconds of 44.1 kHz music.
WINDOW_SIZES = (1024, 256, 64)
# The fixed cost of a window, in latents: reading the weights and starting the program. A GPU starts every
# kernel by itself: an H200 takes as long for that as for 44 latents in the encoder and 78 in the decoder.
OVERHEAD, GPU_OVERHEAD = 8, 64


def sizes_for(*contexts: Reach) -> tuple[int, ...]:
    """`WINDOW_SIZES`, doubled until the smallest window keeps half of its latents in each context."""
    needed = 2 * (max(sum(context) for context in contexts) + 1)
    factor = 1
    while factor * WINDOW_SIZES[-1] < needed:
        factor *= 2
    return tuple(factor * size for size in WINDOW_SIZES)


class Window(NamedTuple):
    """A window of a file, in latents."""

    start: int  # first latent in the window
    size: int  # latents in the window, including those beyond the end of the file
    keep_from: int  # first latent kept, counted in the file
    keep_to: int  # one after the last latent kept


class Tiling:
    """Chooses windows one after the other; their kept parts cover a file without a gap or an overlap.

    Args:
      sizes: sizes of the windows to choose from, in latents.
      context: latents that a window needs besides those it keeps.
      free_padding: whether the part of a window beyond the end of the file costs nothing.
      overhead: latents that could be computed in the time that a window takes besides those it holds.
    """

    def __init__(
        self, sizes: Sequence[int], context: Reach, *, free_padding: bool = False, overhead: int = OVERHEAD
    ):
        shortest = context.left + context.right + 1
        if min(sizes) < shortest:
            raise UserError(
                f"a window of {min(sizes)} latents keeps none; pass window_sizes of {shortest} or more"
            )
        self.sizes, self.context = tuple(sorted(sizes)), context
        self._overhead, self._free_padding = overhead, free_padding

    @property
    def lookahead(self) -> int:
        """Latents from a window's start on that must be read to choose it before the file's end is known."""
        return 2 * self.sizes[-1]

    def plan(self, latents: int) -> list[Window]:
        """All windows of a file of known length, in order."""
        windows: list[Window] = []
        kept = 0
        while kept < latents:
            windows.append(self.next(kept, latents))
            kept = windows[-1].keep_to
        return windows

    def next(self, kept: int, latents: int) -> Window:
        """The next window of a file of `latents` latents, of which the first `kept` are done.

        While the end of the file is unknown, `latents` may be the number known so far, if that is at least
        `lookahead` after the window's start: so far from the end the largest size is best.
        """
        start = max(0, kept - self.context.left)
        rest = latents - start
        far = rest >= self.lookahead
        size = self.sizes[-1]
        if not far:
            overlap = sum(self.context)
            size = _cheapest(rest, self.sizes, overlap, self._overhead, self._free_padding)[1]
        keep_to = latents if size >= rest else start + size - self.context.right
        return Window(start, size, kept, keep_to)


@functools.lru_cache(maxsize=4096)
def _cheapest(
    rest: int, sizes: tuple[int, ...], overlap: int, overhead: int, free_padding: bool
) -> tuple[int, int]:
    """The least cost of covering `rest` latents from the start of a window, and the first window's size."""
    options = []
    for size in sizes:
        cost = overhead + (min(size, rest) if free_padding else size)
        if size < rest:
            cost += _cheapest(rest - size + overlap, sizes, overlap, overhead, free_padding)[0]
        options.append((cost, size))
        if size >= rest:
            break
    return min(options)
