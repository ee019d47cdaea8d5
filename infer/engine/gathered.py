"""The latents of a file, gathered window by window."""

import numpy as np
from jaxtyping import Float

_ROOM = 1 << 24  # values; malloc keeps no array so large on its heap, so freeing it returns its pages


class Gathered:
    """Collects rows, arriving in any order, in one array, so that joining them needs no second array.

    The array is allocated ahead of need; the system gives it pages only where rows arrive.
    """

    def __init__(self):
        self._rows: np.ndarray | None = None
        self._count = 0

    def put(self, start: int, rows: Float[np.ndarray, "M D"]) -> None:
        """Stores rows from `start` on."""
        stop = start + len(rows)
        if self._rows is None:
            self._rows = np.empty((max(_ROOM // rows.shape[1], stop), rows.shape[1]), rows.dtype)
        elif stop > len(self._rows):
            larger = np.empty((max(2 * len(self._rows), stop), rows.shape[1]), rows.dtype)
            larger[: self._count] = self._rows[: self._count]
            self._rows = larger
        self._rows[start:stop] = rows
        self._count = max(self._count, stop)

    def take(self) -> Float[np.ndarray, "N D"]:
        """Returns all rows and gives them up."""
        assert self._rows is not None  # every file has a window
        room = len(self._rows)
        rows, self._rows = self._rows[: self._count], None
        # The latents of a short file are copied, so that the unused part of the array is freed.
        return rows.copy() if 2 * len(rows) < room else rows
