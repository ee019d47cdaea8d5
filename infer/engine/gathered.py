"""The latents of a file, gathered window by window."""

import numpy as np
from jaxtyping import Float

_ROOM = 1 << 24  # values; malloc keeps no array so large on its heap, so freeing it returns its pages


class Gathered:
    """Collects rows, arriving in any order, in one array, so that joining them needs no second array.

    The array is allocated ahead of need once a second window arrives; the system gives it pages only where
    rows arrive.
    """

    def __init__(self):
        self._rows: np.ndarray | None = None
        self._count = 0

    def put(self, start: int, rows: Float[np.ndarray, "M D"]) -> None:
        """Stores rows from `start` on."""
        stop = start + len(rows)
        if self._rows is None and start == 0:  # they may remain the only ones
            self._rows = rows.copy()  # a view would hold the whole batch
        else:
            self._rows = self._with_room(stop, rows)
            self._rows[start:stop] = rows
        self._count = max(self._count, stop)

    def _with_room(self, stop: int, like: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "R D"]:
        room = 0 if self._rows is None else len(self._rows)
        if self._rows is not None and stop <= room:
            return self._rows
        width = like.shape[1]
        larger = np.empty((max(2 * room, _ROOM // width, stop), width), like.dtype)
        if self._rows is not None:
            larger[: self._count] = self._rows[: self._count]
        return larger

    def take(self) -> Float[np.ndarray, "N D"]:
        """Returns all rows and gives them up."""
        assert self._rows is not None  # every file has a window
        room = len(self._rows)
        rows, self._rows = self._rows[: self._count], None
        # The latents of a short file are copied, so that the unused part of the array is freed.
        return rows.copy() if 2 * len(rows) < room else rows
