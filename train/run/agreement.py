"""When the processes of a run agree on whether to stop: rarely enough to cost nothing, and soon enough."""

import time
from collections.abc import Callable

import jax
import numpy as np

from earvae_jax.system.between_processes import gather_numbers

# A scheduler that asks to stop gives half a minute or more, in which a run also has to save. To agree,
# processes wait for the step in flight and exchange numbers, while no device computes: docs/hosts.md has what
# that costs.
SECONDS = 2.0
_MOST = 1000  # steps, should they take no time


class Agreement:
    """Whether to stop before a step; all processes get the same answer at the same step.

    One process answers for itself. Several ask each other every few steps, about every `SECONDS` of the
    slowest. After how many they ask again follows from numbers that all have.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._interval = self._left = 1  # steps from one agreement to the next, and until the next
        self._asked: float | None = None  # when

    def to_stop(self, wanted: bool) -> bool:
        """Whether any process wants to stop, as far as this one knows; call it before every step."""
        if jax.process_count() == 1:
            return wanted
        self._left -= 1
        if self._left:
            return False
        now = self._clock()
        pace = 0.0 if self._asked is None else (now - self._asked) / self._interval  # seconds of a step
        self._asked = now
        answers = gather_numbers(np.array([wanted, pace]))
        pace = float(answers[:, 1].max())
        # The first step compiles: its pace is no other's, and the one after it is asked too.
        self._interval = self._left = max(1, min(_MOST, int(SECONDS / pace))) if pace else 1
        return bool(answers[:, 0].any())
