"""Runs the windows of any number of files in batches."""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from earvae_jax.infer.engine.cutting import Cut


class _Waiting(NamedTuple):
    cut: Cut
    deliver: Callable[[Cut, Any], None]


class Batcher:
    """Collects windows by size, runs each full batch, and hands out the results once they are ready.

    Args:
      run: (values [B, …], start [B], stop [B]) -> pytree of arrays [B, …].
      batch_size: windows of a full batch.
      multiple: the number of devices; every batch is a multiple of it.
      in_flight: batches that compute while the next is prepared.
    """

    def __init__(self, run: Callable[..., Any], *, batch_size: int, multiple: int = 1, in_flight: int = 1):
        self._run, self._batch_size, self._multiple, self._in_flight = run, batch_size, multiple, in_flight
        self._waiting: dict[int, list[_Waiting]] = collections.defaultdict(list)
        self._running: collections.deque[tuple[list[_Waiting], Any]] = collections.deque()

    def add(self, cut: Cut, deliver: Callable[[Cut, Any], None]) -> None:
        """Takes one window; `deliver(cut, result)` is called from a later `add` or `flush`."""
        bucket = self._waiting[cut.window.size]
        bucket.append(_Waiting(cut, deliver))
        if len(bucket) >= self._batch_size:
            self._start(cut.window.size)

    def flush(self) -> None:
        """Runs all waiting windows and hands out all results."""
        for size in sorted(self._waiting):
            if self._waiting[size]:
                self._start(size)
        while self._running:
            self._finish()

    def _start(self, size: int) -> None:
        while len(self._running) >= self._in_flight:
            self._finish()
        batch = self._waiting.pop(size)
        count = padded_count(len(batch), self._multiple, self._batch_size)
        values = np.stack([waiting.cut.values for waiting in batch])
        values = np.concatenate([values, np.zeros((count - len(batch), *values.shape[1:]), values.dtype)])
        start, stop = np.zeros(count, np.int32), np.zeros(count, np.int32)
        start[: len(batch)] = [waiting.cut.start for waiting in batch]
        stop[: len(batch)] = [waiting.cut.stop for waiting in batch]
        results = self._run(values, start, stop)
        jax.tree.map(_send_home, results)
        self._running.append((batch, results))

    def _finish(self) -> None:
        batch, results = self._running.popleft()
        results = jax.tree.map(np.asarray, results)
        for index, waiting in enumerate(batch):
            waiting.deliver(waiting.cut, jax.tree.map(lambda array, i=index: array[i], results))


def _send_home(array: Any) -> None:
    """Has a device copy its result to the host as soon as it is computed, while the next batch computes."""
    if isinstance(array, jax.Array):
        array.copy_to_host_async()


def calls_for(windows: int, *, batch_size: int, multiple: int = 1) -> dict[int, int]:
    """How a `Batcher` runs so many windows of a size: the sizes of its batches, and how many there are."""
    full, rest = divmod(windows, batch_size)
    calls = {padded_count(batch_size, multiple, batch_size): full} if full else {}
    if rest:
        last = padded_count(rest, multiple, batch_size)
        calls[last] = calls.get(last, 0) + 1
    return calls


def padded_count(count: int, multiple: int, full: int) -> int:
    """A power of two times the number of devices, at most `full`: small batches then share few programs."""
    per_device, most = -(-count // multiple), -(-full // multiple)
    return multiple * min(most, 1 << (per_device - 1).bit_length())
