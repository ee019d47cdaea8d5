"""A device is never left without work: the next batch waits on it when one ends, and its results come back.

The device here is a thread that ends no batch before the next one has been handed over: a pipeline that first
fetched or wrote the results of a batch would wait for it for ever.
"""

import dataclasses
import queue
import threading

import numpy as np
import pytest

from earvae_jax.infer.engine.batching import Batcher, BatchSize
from earvae_jax.infer.engine.cutting import Cut
from earvae_jax.infer.engine.tiling import Window

PATIENCE = 30  # seconds, after which a batch is given up


class Result:
    """An array that is being computed."""

    def __init__(self, values: np.ndarray):
        self._values, self.ready, self.starved = values, threading.Event(), False

    def __array__(self, dtype=None, copy=None):
        assert self.ready.wait(PATIENCE) and not self.starved, "the device had nothing to do"
        return self._values


@dataclasses.dataclass
class Device:
    """Computes batches one after the other, each only once the next has come, but for the last of all."""

    batches: int
    _calls: "queue.Queue[Result]" = dataclasses.field(default_factory=queue.Queue)

    def __post_init__(self):
        threading.Thread(target=self._work, daemon=True).start()

    def run(self, values, start, stop):
        del start, stop
        result = Result(2 * values)
        self._calls.put(result)
        return result

    def _work(self):
        result = self._calls.get()
        for _ in range(self.batches - 1):
            try:
                following = self._calls.get(timeout=PATIENCE)
            except queue.Empty:
                result.starved = True
                result.ready.set()
                return
            result.ready.set()
            result = following
        result.ready.set()


def cuts(number):
    return [
        Cut(Window(index, 1, index, index + 1), np.full((1, 1), index, np.float32), 0, 1)
        for index in range(number)
    ]


def delivered(batcher, number):
    results = {}
    for cut in cuts(number):
        batcher.add(cut, lambda cut, result: results.update({cut.window.start: float(result[0, 0])}))
    batcher.flush()
    return results


@pytest.mark.parametrize("batches", [1, 2, 3, 7])
def test_the_next_batch_waits_on_the_device_when_one_ends(batches):
    device = Device(batches)
    batcher = Batcher(device.run, batch_size=BatchSize(3), in_flight=2)
    assert delivered(batcher, 3 * batches) == {index: 2.0 * index for index in range(3 * batches)}


def test_this_device_notices_a_pipeline_that_lets_it_wait(monkeypatch):
    monkeypatch.setattr(f"{__name__}.PATIENCE", 0.2)
    batcher = Batcher(Device(2).run, batch_size=BatchSize(3), in_flight=1)
    with pytest.raises(AssertionError, match="nothing to do"):
        delivered(batcher, 6)
