"""Runs the windows of any number of files in batches."""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from earvae_jax.errors import is_out_of_memory
from earvae_jax.infer.engine.cutting import Cut


class BatchSize:
    """Windows of a full batch; where a device has no memory for so many, half of them, once.

    Args:
      windows: of a full batch, at first.
      multiple: the number of devices; every batch is a multiple of it.
      largest: latents of the largest windows, if `windows` is of those and a batch of smaller ones holds as
        many latents; None: there are as many windows of any size.
      few_programs: whether a batch that is not full is filled up with empty windows unless it is a single one
        for each device. For an accelerator that is a moment, and another program compiles for half a minute.
    """

    def __init__(
        self, windows: int, multiple: int = 1, *, largest: int | None = None, few_programs: bool = False
    ):
        self.multiple = multiple
        self._windows, self._latents = windows, None if largest is None else windows * largest
        self._few_programs = few_programs
        self._halved = False

    def of(self, size: int) -> int:
        """Windows of `size` latents in a full batch."""
        if self._latents is None:
            return self._windows
        return max(1, self._latents // size // self.multiple) * self.multiple

    def padded(self, count: int, size: int) -> int:
        """What so many windows are filled up to, so that small batches share programs.

        For each device that is a power of two, with few programs one or a full batch.
        """
        per_device, most = -(-count // self.multiple), -(-self.of(size) // self.multiple)
        if self._few_programs:
            return self.multiple * (1 if per_device == 1 else most)
        return self.multiple * min(most, 1 << (per_device - 1).bit_length())

    def calls(self, windows: int, size: int) -> dict[int, int]:
        """How a `Batcher` runs so many windows: the sizes of its batches, and how many there are of each."""
        full, rest = divmod(windows, self.of(size))
        calls = {self.padded(self.of(size), size): full} if full else {}
        if rest:
            last = self.padded(rest, size)
            calls[last] = calls.get(last, 0) + 1
        return calls

    def halve(self, error: Exception, tried: int, size: int) -> None:
        """Goes on with half of the windows of the batch that failed, and says so.

        Raises:
          Exception: the error, if it is none of memory, if there is no half, or if this is the half already.
        """
        per_device = -(-tried // self.multiple)
        if self._halved or per_device < 2 or not is_out_of_memory(error):
            raise error
        half, self._halved = per_device // 2 * self.multiple, True
        advice = ""
        if self._latents is None:
            self._windows = half
            advice = f"; --batch-size {half} begins with them"
        else:
            self._latents = half * size
        logging.warning("out of memory with %d windows at a time: going on with %d%s", tried, half, advice)


class _Waiting(NamedTuple):
    cut: Cut
    deliver: Callable[[Cut, Any], None]


class _Running(NamedTuple):
    batch: Sequence[_Waiting]
    results: Any  # that may not be computed yet
    full: int  # windows of a full batch when it began


class Batcher:
    """Collects windows by size, runs each full batch, and hands out the results once they are ready.

    A batch for which a device has no memory is run again in halves (`BatchSize`).

    Args:
      run: (values [B, …], start [B], stop [B]) -> pytree of arrays [B, …].
      batch_size: windows of a full batch; batchers of one model share it.
      in_flight: batches that compute while the next is prepared.
    """

    def __init__(self, run: Callable[..., Any], *, batch_size: BatchSize, in_flight: int = 1):
        self._run, self._batch_size, self._in_flight = run, batch_size, in_flight
        self._waiting: dict[int, list[_Waiting]] = collections.defaultdict(list)
        self._running: collections.deque[_Running] = collections.deque()

    def add(self, cut: Cut, deliver: Callable[[Cut, Any], None]) -> None:
        """Takes one window; `deliver(cut, result)` is called from a later `add` or `flush`."""
        bucket = self._waiting[cut.window.size]
        bucket.append(_Waiting(cut, deliver))
        if len(bucket) >= self._batch_size.of(cut.window.size):
            self._start(cut.window.size)

    def flush(self) -> None:
        """Runs all waiting windows and hands out all results."""
        for size in sorted(self._waiting):
            if self._waiting[size]:
                self._start(size)
        while self._running:
            self._finish()

    def _start(self, size: int) -> None:
        left: Sequence[_Waiting] = self._waiting.pop(size)
        while left:  # more than one batch only where their size was halved in between
            while len(self._running) >= self._in_flight:
                self._finish()
            full = self._batch_size.of(size)
            batch, left = left[:full], left[full:]
            try:
                self._running.append(_Running(batch, self._started(batch), full))
            except Exception as error:  # noqa: BLE001 - raised again unless memory ran out
                self._make_smaller(error, batch, full)
                left = [*batch, *left]

    def _started(self, batch: Sequence[_Waiting]) -> Any:
        count = self._batch_size.padded(len(batch), batch[0].cut.window.size)
        values = batch[0].cut.values[None]
        if count > 1:  # a window is megabytes: each copy shows
            values = np.zeros((count, *values.shape[1:]), values.dtype)
            for row, waiting in zip(values, batch, strict=False):
                row[...] = waiting.cut.values
        start, stop = np.zeros(count, np.int32), np.zeros(count, np.int32)
        start[: len(batch)] = [waiting.cut.start for waiting in batch]
        stop[: len(batch)] = [waiting.cut.stop for waiting in batch]
        results = self._run(values, start, stop)
        jax.tree.map(_send_home, results)
        return results

    def _finish(self) -> None:
        batch, results, full = self._running.popleft()
        try:
            results = jax.tree.map(np.asarray, results)
        except Exception as error:  # noqa: BLE001 - raised again unless memory ran out
            self._make_smaller(error, batch, full)
            results = None  # the memory that it holds is free then
        if results is not None:
            _hand_out(batch, results)
            return
        some = self._batch_size.of(batch[0].cut.window.size)
        for first in range(0, len(batch), some):
            part = batch[first : first + some]
            _hand_out(part, jax.tree.map(np.asarray, self._started(part)))

    def _make_smaller(self, error: Exception, batch: Sequence[_Waiting], full: int) -> None:
        """After the failure of a batch, when `full` windows made one; raises what is no cure."""
        size = batch[0].cut.window.size
        if full == self._batch_size.of(size):
            self._batch_size.halve(error, self._batch_size.padded(len(batch), size), size)
        elif not is_out_of_memory(error):
            raise error


def _hand_out(batch: Sequence[_Waiting], results: Any) -> None:
    for index, waiting in enumerate(batch):
        waiting.deliver(waiting.cut, jax.tree.map(lambda array, i=index: array[i], results))


def _send_home(array: Any) -> None:
    """Has a device copy its result to the host as soon as it is computed, while the next batch computes."""
    if isinstance(array, jax.Array):
        array.copy_to_host_async()
