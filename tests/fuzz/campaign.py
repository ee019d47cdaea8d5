"""The watching side of a campaign: workers, their limits, and the record by which it continues."""

import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from places import HELPERS, TESTS

from .cases.domains import domain_of
from .outcomes import Outcome, first_frames

_LOOK = 0.02  # seconds between two looks at a worker's memory
_STARTING = 300.0  # seconds that a worker may take to import, and to make the first seed files


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a case may take."""

    seconds: float = 60.0
    megabytes: int = 4096


class State:
    """The folder of a campaign: the seed files, the record `cases.jsonl`, the workers' folders."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder.resolve(), seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = self.folder / f"cases-{seed}.jsonl"

    def outcomes(self, cases: int, only: Collection[str] | None = None) -> list[Outcome]:
        """What is known of the cases below this number; the last word counts."""
        known: dict[int, Outcome] = {}
        if self.record.exists():
            for line in self.record.read_text(encoding="utf-8").splitlines():
                try:
                    outcome = Outcome(**json.loads(line))
                except ValueError:
                    continue  # the line at which the campaign was killed
                known[outcome.number] = outcome
        chosen = [known[number] for number in sorted(known) if number < cases]
        return [outcome for outcome in chosen if not only or outcome.domain in only]

    def add(self, outcome: Outcome) -> None:
        """Appends to the record."""
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome.to_dict()) + "\n")

    def forget_faults(self) -> None:
        """So that they are run again; what they were is kept beside."""
        kept = [outcome for outcome in self.outcomes(sys.maxsize) if outcome.kind != "fault"]
        if self.record.exists():
            self.record.replace(self.record.with_suffix(f".{int(time.time())}.jsonl"))
        for outcome in kept:
            self.add(outcome)


class Worker:
    """A process that runs one case at a time, and is killed where a case takes too much."""

    def __init__(self, state: State, name: str, limits: Limits):
        self.state, self.limits = state, limits
        self.folder = state.folder / "work" / name
        self.number: int | None = None
        self.ready = False
        self._process: subprocess.Popen | None = None
        self._buffer = b""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._start()

    def give(self, number: int) -> None:
        """Starts a case."""
        self.number, self._begun, self._largest = number, time.monotonic(), 0
        try:
            self._process.stdin.write(f"{number}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead; `look` says of what

    def look(self) -> Outcome | None:
        """The outcome, once there is one."""
        for line in self._lines():
            if line == b"ready":
                self.ready, self._begun = True, time.monotonic()
            else:
                outcome = Outcome(**json.loads(line))
                self.number = None
                if outcome.megabytes > self.limits.megabytes:
                    outcome = dataclasses.replace(outcome, kind="fault", cause="memory, given back by itself")
                return outcome
        took = time.monotonic() - self._begun
        if not self.ready:
            if self._process.poll() is not None or took > _STARTING:
                raise RuntimeError(f"a worker did not start:\n{self._said()}")
            return None
        if self.number is None:
            return None
        self._largest = max(self._largest, _megabytes(self._process.pid))
        if self._process.poll() is not None:
            status = self._process.returncode
            name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            return self._ended(f"crash: {name} in {first_frames(self._said())}", took)
        if took > self.limits.seconds:
            return self._ended(f"hang: in {first_frames(self._said())}", took)
        if self._largest > self.limits.megabytes:
            return self._ended("memory", took)
        return None

    def stop(self) -> None:
        """Kills it and everything that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()

    def _start(self) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (TESTS, HELPERS))),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "temporary"),
            "EARVAE_CACHE_DIR": str(self.state.folder / "programs"),
            "HF_HUB_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        for name in ("home", "temporary"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        words = [self.state.folder, self.folder, self.state.seed, self.limits.seconds]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", *map(str, words)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._buffer, self.ready, self._begun = b"", False, time.monotonic()

    def _lines(self) -> Iterator[bytes]:
        while chunk := self._process.stdout.read(1 << 16):
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        yield from lines

    def _ended(self, cause: str, took: float) -> Outcome:
        """Of a case that does not speak for itself."""
        said = self._said()
        if cause == "memory":
            os.kill(self._process.pid, signal.SIGABRT)  # its fault handler tells where it is
            time.sleep(0.5)
            said = self._said()
            cause = f"memory: in {first_frames(said)}"
        made = (self.folder / "made").read_text(encoding="utf-8") if (self.folder / "made").exists() else ""
        domain = domain_of(self.number)
        outcome = Outcome(self.number, domain, "fault", made, cause, said, took, self._largest)
        self.stop()
        self.number = None
        self._start()
        return outcome

    def _said(self) -> str:
        path = self.folder / "stderr"
        return path.read_text(encoding="utf-8", errors="replace")[-6000:] if path.exists() else ""

    def recycle_if_large(self, megabytes: int = 1800) -> None:
        """What earlier cases left in the process must not count as a later one's."""
        if self.number is None and self.ready and _megabytes(self._process.pid) > megabytes:
            self.stop()
            self._start()

    @property
    def pipe(self) -> int:
        """To wait for."""
        return self._process.stdout.fileno()


def run(
    state: State,
    cases: int,
    limits: Limits,
    *,
    only: Sequence[str] | None = None,
    workers: int = 2,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Runs the cases below this number that the record does not hold yet."""
    known = {outcome.number for outcome in state.outcomes(cases)}
    numbers = [n for n in range(cases) if n not in known and (not only or domain_of(n) in only)]
    waiting = iter(numbers)
    tell(f"{len(known)} cases known, {len(numbers)} to run")
    if not numbers:
        return
    pool = [Worker(state, "0", limits)]
    try:
        while not pool[0].ready:  # the first makes the seed files
            pool[0].look()
            time.sleep(_LOOK)
        pool += [Worker(state, str(index), limits) for index in range(1, workers)]
        left, begun = len(numbers), time.monotonic()
        while left:
            for worker in pool:
                if worker.ready and worker.number is None:
                    worker.recycle_if_large()
                    if worker.ready and (number := next(waiting, None)) is not None:
                        worker.give(number)
            select.select([worker.pipe for worker in pool], [], [], _LOOK)
            for worker in pool:
                if (outcome := worker.look()) is not None:
                    state.add(outcome)
                    left -= 1
                    if outcome.kind == "fault":
                        tell(f"case {outcome.number} {outcome.domain}: {outcome.cause}")
                    if left % 500 == 0:
                        tell(f"{left} left after {time.monotonic() - begun:.0f} s")
    finally:
        for worker in pool:
            worker.stop()


def replay(state: State, number: int, limits: Limits) -> tuple[Outcome, Path]:
    """One case alone; its files stay in the folder that is given back."""
    worker = Worker(state, f"case-{number}", limits)
    try:
        while not worker.ready:
            worker.look()
            time.sleep(_LOOK)
        worker.give(number)
        while (outcome := worker.look()) is None:
            time.sleep(_LOOK)
    finally:
        worker.stop()
    kept = state.folder / f"kept-{number}"
    shutil.rmtree(kept, ignore_errors=True)
    if (worker.folder / "case").exists():
        (worker.folder / "case").rename(kept)
    return outcome, kept


def _megabytes(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
