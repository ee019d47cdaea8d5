"""Jobs wait, tell how far they are, and end when nobody waits for them."""

import asyncio
import threading

import pytest

from earvae_jax.errors import UserError
from earvae_jax.infer.web_app import jobs
from earvae_jax.infer.web_app.jobs import Job, followed, wait_for_jobs
from earvae_jax.infer.web_app.visitors import Turns, Visitor


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(jobs, "_SECONDS", 0.01)


@pytest.fixture
def visitor(tmp_path) -> Visitor:
    return Visitor(tmp_path)


class Steps(Job):
    """Works until it is let go; `ended` is set when its thread is through."""

    def __init__(self, visitor, error: Exception | None = None):
        super().__init__(visitor)
        self.running, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self._error = error

    def run(self):
        try:
            if self._error is not None:
                raise self._error
            self.running.set()
            while not self.go_on.wait(0.005):
                self.at("Working", 0.5)
        finally:
            self.ended.set()


async def stages(job: Job, turns: Turns, seen: list[str]) -> None:
    async for _ in followed(job, turns):
        if not seen or seen[-1] != job.stage:
            seen.append(job.stage)


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def test_two_jobs_run_one_after_the_other(visitor):
    async def both():
        turns, one, other = Turns(5), Steps(visitor), Steps(visitor)
        seen: tuple[list[str], list[str]] = [], []
        first = asyncio.create_task(stages(one, turns, seen[0]))
        await until(one.running.is_set)
        second = asyncio.create_task(stages(other, turns, seen[1]))
        await until(lambda: seen[1])
        assert not other.running.is_set()
        one.go_on.set()
        await first
        await until(other.running.is_set)
        other.go_on.set()
        await second
        return seen, turns

    (one, other), turns = asyncio.run(both())
    assert "Working" in one and not any("Waiting" in stage for stage in one)
    assert other[0] == "Waiting: another song is before this one"
    assert turns.join().before == 0


def test_a_closed_page_ends_its_job_and_the_next_one_begins(visitor, tmp_path):
    async def leave():
        turns, one, other = Turns(5), Steps(visitor), Steps(Visitor(tmp_path))
        first = asyncio.create_task(stages(one, turns, []))
        await until(one.running.is_set)
        second = asyncio.create_task(stages(other, turns, []))
        visitor.gone.set()
        await until(one.ended.is_set)
        with pytest.raises(UserError, match="closed"):
            await first
        await until(other.running.is_set)
        other.go_on.set()
        await second

    asyncio.run(leave())


@pytest.mark.parametrize("waits", [False, True], ids=["while it runs", "while it waits"])
def test_closing_the_generator_ends_the_job(visitor, waits):
    async def close():
        turns, job = Turns(5), Steps(visitor)
        other = turns.join() if waits else None
        generator = followed(job, turns)
        await anext(generator)
        if not waits:
            await anext(generator)
            await until(job.running.is_set)
        await generator.aclose()
        if waits:
            other.leave()
        else:
            await until(job.ended.is_set)
        ticket = turns.join()
        await until(lambda: ticket.before == 0)

    asyncio.run(close())


def test_the_end_of_the_program_can_wait_for_jobs(visitor):
    async def end():
        job = Steps(visitor)
        task = asyncio.create_task(stages(job, Turns(5), []))
        await until(job.running.is_set)
        assert not wait_for_jobs(0.01)
        visitor.gone.set()
        assert wait_for_jobs(30)
        with pytest.raises(UserError, match="closed"):
            await task

    asyncio.run(end())


@pytest.mark.parametrize(
    "error, message",
    [
        (UserError("song.mp3: is empty"), "song.mp3: is empty"),
        (OSError(28, "No space left"), "No space left"),
    ],
)
def test_an_error_is_one_line_and_the_turn_goes_on(visitor, error, message):
    turns = Turns(5)
    with pytest.raises(UserError, match=message) as raised:
        asyncio.run(stages(Steps(visitor, error), turns, []))
    assert "\n" not in str(raised.value)
    assert turns.join().before == 0
