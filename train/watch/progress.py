"""The progress lines of a training run: averages of the losses, speed and the time left."""

import collections
import time
from collections.abc import Mapping

import numpy as np

from earvae_jax.train.config import TrainConfig

_RECENT = 100  # steps over which the pace is measured


class Progress:
    """Averages of the terms since the last line, and the pace of recent steps.

    The terms of a step are read while the next one runs, so a step's time goes from one reading to the next.
    """

    def __init__(self, config: TrainConfig, sample_rate: int):
        self._config = config
        self._seconds_of_audio = config.data.batch_size * config.data.crop_samples / sample_rate
        self._values: dict[str, list[float]] = {}
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._kind: bool | None = None
        self._first = 0  # step of the present kind
        self._clock = time.monotonic()

    def started(self, step: int, *, adversarial: bool) -> None:
        """Notes which kind of step the device has just received: pace is measured within one kind."""
        if adversarial != self._kind:
            self._kind, self._first = adversarial, step
            self._recent.clear()

    def pause(self) -> None:
        """Leaves the time since the last step out of the pace."""
        self._clock = time.monotonic()

    def add(self, values: Mapping[str, float], done: int) -> dict[str, float] | None:
        """Adds the terms of a step; returns the averages after each `log_every` steps."""
        now = time.monotonic()
        # The first step of a kind compiles before the terms of the previous step are read.
        if done > self._first:
            self._recent.append(now - self._clock)
        self._clock = now
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        if done % self._config.log_every and done != self._config.steps:
            return None
        averages = {name: float(np.mean(values)) for name, values in self._values.items()}
        self._values = {}
        return averages

    def line(self, averages: Mapping[str, float], done: int, skipped: Mapping[str, int]) -> str:
        """Step, losses, what was skipped so far, seconds of audio per second, and time left at this pace."""
        parts = [f"step {done}/{self._config.steps}"]
        # Names with a stroke are parts of what stands without; they are for the board alone.
        parts += [f"{name} {value:.4g}" for name, value in averages.items() if "/" not in name]
        parts += [f"{count} {what} skipped" for what, count in skipped.items() if count]
        if self._recent:
            pace = sum(self._recent) / len(self._recent)
            minutes, seconds = divmod(round(pace * (self._config.steps - done)), 60)
            left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
            parts.append(f"{self._seconds_of_audio / pace:.2f} s of audio per s, {left} left")
        return "  ".join(parts)
