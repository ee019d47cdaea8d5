"""Processes agree on whether to stop: rarely, at the same steps, and all of them."""

import threading

import jax
import numpy as np
import pytest

from earvae_jax.train.run import agreement
from earvae_jax.train.run.agreement import SECONDS, Agreement


class Two:
    """Two processes in two threads, whose steps take as long as their clocks say."""

    def __init__(self, monkeypatch):
        self._meeting = threading.Barrier(2, timeout=20)
        self._own = threading.local()
        self._given: list = [None, None]
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(agreement, "gather_numbers", self._gather)

    def _gather(self, values):
        self._own.asked.append(self._own.step)
        self._given[self._own.index] = np.asarray(values, np.float32)
        self._meeting.wait()
        rows = np.stack(self._given)
        self._meeting.wait()
        return rows

    def run(self, paces, steps: int, *, interrupted=(None, None)) -> list[tuple[int, list[int]]]:
        """For each process the steps done, and those before which it asked the other."""
        found: list = [None, None]

        def process(index: int) -> None:
            self._own.index, self._own.asked, self._own.step = index, [], 0
            now = 1000.0 * index  # clocks of two machines
            agreed = Agreement(clock=lambda: now)
            while self._own.step < steps:
                at = interrupted[index]
                if agreed.to_stop(at is not None and self._own.step >= at):
                    break
                now += paces[index](self._own.step)
                self._own.step += 1
            found[index] = (self._own.step, self._own.asked)

        threads = [threading.Thread(target=process, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert None not in found, "a process waits for the other"
        return found


@pytest.fixture
def two(monkeypatch) -> Two:
    return Two(monkeypatch)


def compiling(pace: float):
    """Steps of so many seconds; the first takes a minute."""
    return lambda step: 60.0 if step == 0 else pace


def test_they_ask_at_the_same_steps_and_seldom(two):
    first, second = two.run((compiling(0.1), compiling(0.11)), 200)
    assert first == second and first[0] == 200
    asked = first[1]
    assert asked[:3] == [0, 1, 2]
    between = np.diff(asked[2:])
    assert set(between) == {int(SECONDS / 0.11)}, "after about two seconds of the slower one"


def test_long_steps_are_asked_before_each(two):
    (done, asked), _ = two.run((compiling(5.0), compiling(0.1)), 12)
    assert done == 12 and asked == list(range(12))


@pytest.mark.parametrize("one", [0, 1])
@pytest.mark.parametrize("step", [0, 1, 30, 77])
def test_an_interrupted_one_stops_both_at_the_same_step(two, one, step):
    interrupted = [None, None]
    interrupted[one] = step
    (first, _), (second, _) = two.run((compiling(0.1), compiling(0.1)), 200, interrupted=interrupted)
    assert first == second and step <= first <= step + SECONDS / 0.1


def test_steps_that_become_slow_are_asked_more_often(two):
    def slower(step):
        return 0.1 if step < 100 else 10.0

    (_, asked), _ = two.run((slower, slower), 160)
    assert set(np.diff([each for each in asked if each > 125])) == {1}


def test_one_process_answers_for_itself(monkeypatch):
    monkeypatch.setattr(agreement, "gather_numbers", lambda values: pytest.fail("there is no other"))
    agreed = Agreement()
    assert [agreed.to_stop(wanted) for wanted in (False, False, True)] == [False, False, True]
