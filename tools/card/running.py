"""Runs parts one after the other within a budget of time, and keeps what each found."""

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earvae_jax.errors import UserError
from earvae_jax.system.atomic import replacing
from tools.card import packages
from tools.card.parts import MACHINE, Part, Place

ROOT = Path(__file__).parents[2]
DONE, FAILED, OUT_OF_TIME, NOT_RUN = "done", "failed", "out of time", "not run"
_GRACE = 5.0  # seconds from asking a part to end until it is ended


@dataclasses.dataclass
class Outcome:
    """What became of a part."""

    name: str
    title: str
    status: str
    seconds: float = 0.0
    reason: str = ""  # why it is not done
    where: dict[str, Any] = dataclasses.field(default_factory=dict)  # machine and size that it belongs to
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    kept: bool = False  # from an earlier call

    @property
    def good(self) -> bool:
        """Whether it ran, and what it checks holds."""
        return self.status == DONE and self.result.get("passed", True) is not False


class Runner:
    """Runs parts; everything they make lies under one folder.

    Args:
      folder: takes `parts/NAME.json` and `parts/NAME.log`, and what parts make and share.
      small: whether to run the small versions.
      budget: seconds for all parts together.
    """

    def __init__(self, folder: Path, *, small: bool, budget: float):
        self._parts = folder / "parts"
        work = folder / ("work-small" if small else "work")
        for each in (self._parts, work):
            try:
                each.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{each}: cannot be made: {error.strerror}") from None
        self._place = Place(work.absolute(), small)
        self._until = time.monotonic() + budget
        self._where: dict[str, Any] = {"small": small}
        self._without: list[str] = []

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self._until - time.monotonic()

    def look(self) -> Outcome:
        """Describes the machine, which every other part needs to know.

        Raises:
          UserError: a package is missing, JAX does not start, or it has no accelerator and the small version
            is not asked for.
        """
        if names := packages.missing():
            raise UserError(f"packages are missing; run: pip install {' '.join(names)}")
        outcome = self._run(MACHINE)
        if outcome.status != DONE:
            raise UserError(f"the machine cannot be described: {outcome.reason}")
        about = outcome.result
        if about["platform"] == "cpu" and not self._place.small:
            raise UserError(
                "JAX finds no accelerator here: install JAX for it, for an NVIDIA card by "
                "pip install 'jax[cuda12]', or look at what parts/machine.log says; --small tries this "
                "program on a CPU"
            )
        self._where |= {"device": about["device"], **about["versions"]}
        self._without = about["without"]
        return outcome

    def take(self, part: Part, *, again: bool) -> Outcome:
        """The outcome of a part: an earlier one of this machine and size, or that of running it now."""
        kept = self.kept(part)
        if kept is not None and not again:
            return kept
        missing = [module for module in part.needs if module in self._without]
        if missing:
            return self._not_run(part, f"not installed: {', '.join(missing)}")
        if self.left < part.least:
            return self._not_run(
                part, f"{max(0, self.left):.0f} s were left, it takes {part.least:.0f} or more"
            )
        return self._run(part)

    def kept(self, part: Part) -> Outcome | None:
        """What an earlier call found on this machine, at this size."""
        try:
            values = json.loads(self._file(part, "json").read_text(encoding="utf-8"))
            outcome = Outcome(**values)
        except (OSError, ValueError, TypeError):  # there is none, or it is cut short
            return None
        same = outcome.where == self._where and outcome.status == DONE
        return dataclasses.replace(outcome, kept=True) if same else None

    def _file(self, part: Part, suffix: str) -> Path:
        return self._parts / f"{part.name}.{suffix}"

    def _not_run(self, part: Part, reason: str) -> Outcome:
        return Outcome(part.name, part.title, NOT_RUN, reason=reason)

    def _run(self, part: Part) -> Outcome:
        found, log = self._place.work / f"{part.name}.json", self._file(part, "log")
        found.unlink(missing_ok=True)
        limit, started = max(1.0, min(part.limit, self.left)), time.monotonic()
        with log.open("w", encoding="utf-8") as output:
            status = _call(part.words(self._place, found), self._environment(), output, limit)
        outcome = Outcome(
            part.name, part.title, DONE, round(time.monotonic() - started, 1), where=self._where
        )
        if status is None:
            outcome.status, outcome.reason = OUT_OF_TIME, f"it was ended after {limit:.0f} s"
        elif status or not found.exists():
            outcome.status, outcome.reason = FAILED, _last_words(log) or f"it ended with status {status}"
        else:
            outcome.result = json.loads(found.read_text(encoding="utf-8"))
        if part is not MACHINE:
            with replacing(self._file(part, "json")) as temporary:
                temporary.write_text(
                    json.dumps(dataclasses.asdict(outcome), indent=2) + "\n", encoding="utf-8"
                )
        return outcome

    def _environment(self) -> dict[str, str]:
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(places),
            "EARVAE_CACHE_DIR": str(self._place.work / "cache"),
            # A rerun compiles less, also after a part that ended while it compiled: XLA's measurements of
            # kernels are kept one by one.
            "JAX_COMPILATION_CACHE_DIR": str(self._place.work / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self._place.work / "inductor"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch needs memory of the card too
            "HF_HUB_OFFLINE": "1",
        }


def _call(words: Sequence[str], environment: dict[str, str], output: Any, limit: float) -> int | None:
    """The exit status of a program; None if it was ended at its limit. Nothing that it started goes on."""
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # all of them are gone
            return
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:
            time.sleep(0.1)  # for those that it started


def _last_words(log: Path) -> str:
    """The last error that a part told, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:300]
