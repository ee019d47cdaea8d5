"""Compiles for a target in a process of its own, and waits no longer than it should.

Compilers want an environment that must stand before JAX starts, and they can hang or take their process with
them. So they run in another one. A program that does not end is given up, and a new process goes on with the
others.
"""

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from absl import logging

from earvae_jax.errors import UserError
from earvae_jax.targets.catalogue import Target

_WORKER = (sys.executable, "-m", "earvae_jax.targets.worker")
_SETTING_UP = 600  # seconds until the first program, in which a model is read


class Outcome:
    """What came of a request, as the worker told it.

    Attributes:
      plan: subject, resident bytes and programs.
      compiled, failed: the events of each program, by its name.
      largest: what was found of each size that can grow, in order.
      stopped: why the search for the largest size ended early, if it did.
    """

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.compiled: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, Any]] = {}
        self.largest: list[dict[str, Any]] = []
        self.stopped: str | None = None

    @property
    def names(self) -> list[str]:
        """The programs of the plan."""
        return [program["name"] for program in self.plan.get("programs", ())]


def compile_for(
    target: Target,
    plan: str,
    arguments: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    find_largest: bool = True,
    timeout: float,
    worker: Sequence[str] | None = None,
) -> Outcome:
    """Compiles what a plan names, each program for at most `timeout` seconds.

    Args:
      plan: MODULE:FUNCTION, which makes a `Plan` of the arguments and the target's devices.
      environment: variables to set for the process, besides this one's.
      worker: the words that start it; by default `worker.py`.

    Raises:
      UserError: the arguments are wrong, the compiler is not installed or does not start.
    """
    outcome = Outcome()
    request = {"target": target.name, "plan": plan, "arguments": dict(arguments), "largest": find_largest}
    while True:
        request["skip"] = [*outcome.compiled, *outcome.failed]
        broken = _one_process(request, outcome, {**os.environ, **environment}, timeout, worker or _WORKER)
        if broken is None:
            return outcome
        program, problem = broken
        if program not in outcome.names:
            outcome.stopped = f"{program}: {problem}"
            return outcome
        outcome.failed[program] = {"too_large": False, "message": problem}
        request["largest"] = False
        if set(outcome.names) <= {*outcome.compiled, *outcome.failed}:
            return outcome


def _one_process(
    request: Mapping[str, Any],
    outcome: Outcome,
    environment: Mapping[str, str],
    timeout: float,
    worker: Sequence[str],
) -> tuple[str, str] | None:
    """Runs one worker to its end; the program at which it hung or broke down and how, if it did."""
    program: str | None = None
    with _Worker(worker, request, environment) as running:
        while True:
            event = running.next_event(timeout if program is not None else max(timeout, _SETTING_UP))
            if event is None:
                problem = running.how_it_ended(timeout)
                break
            kind = event.pop("event")
            if kind == "end":
                return None
            if kind == "error":
                raise UserError(event["message"] if event["foreseen"] else _unforeseen(event["message"]))
            if kind == "log":
                logging.get_absl_logger().log(event["level"], "%s", event["message"])
            elif kind == "plan":
                outcome.plan = event
            elif kind == "begin":
                program = event["program"]
                logging.info("compiling %s for %s", program, request["target"])
            elif kind == "largest":
                outcome.largest.append(event)
            else:
                (outcome.compiled if kind == "compiled" else outcome.failed)[event.pop("program")] = event
                program = None
    if program is None:
        raise UserError(_unforeseen(problem))
    return program, problem


class _Worker(contextlib.AbstractContextManager):
    """A worker's process, which ends with the context."""

    def __init__(self, words: Sequence[str], request: Mapping[str, Any], environment: Mapping[str, str]):
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("EARVAE_DEBUG") else self._said,
            env=dict(environment),
        )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(json.dumps(request),), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """The next event; None if none came in time, or the process broke down."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def how_it_ended(self, timeout: float) -> str:
        """What went wrong, after `next_event` gave None."""
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return f"did not end in {timeout:g} s; --compile-timeout waits longer"
        if status == -signal.SIGKILL:
            return "the system killed the compiler, perhaps because this machine's memory is full"
        ended = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"the compiler ended {ended}: {self._last_words()}"

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        told = collections.deque((line.strip() for line in lines if line.strip()), maxlen=1)
        return told[0] if told else "it said nothing"

    def _read(self, request: str) -> None:
        """In a thread: hands the request over and collects events until the process ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # a process that has ended already shows by its events
            self._process.stdin.write(request.encode())
            self._process.stdin.close()
        for event in _parsed(self._process.stdout):
            self._events.put(event)
        self._events.put(None)


def _parsed(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


def _unforeseen(problem: str) -> str:
    return f"compiling failed: {problem} (unforeseen: EARVAE_DEBUG=1 shows where; please report it)"
