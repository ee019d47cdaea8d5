"""The latents of a file, gathered window by window."""

import numpy as np
from jaxtyping import Float

_ROOM = 1 << 24  # values: more than malloc keeps on its heap, so that the pages go back when the array goes


class Gathered:
    """Rows that arrive in any order, in one array: no second one is needed to join them.

    Room is taken ahead of need. The system gives pages to it where rows arrive, and not before.
    """

    def __init__(self):
        self._rows: np.ndarray | None = None
        self._count = 0

    def put(self, start: int, rows: Float[np.ndarray, "M D"]) -> None:
        """Rows from `start` on."""
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
        """All rows; they are not kept here."""
        assert self._rows is not None  # there is a window to every file
        room = len(self._rows)
        rows, self._rows = self._rows[: self._count], None
        # The latents of a short file are handed out without the room behind them.
        return rows.copy() if 2 * len(rows) < room else rows
