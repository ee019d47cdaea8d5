"""The project in a warm process: thousands of commands and library calls run in it, each as if alone."""

import contextlib
import gc
import io
import logging as python_logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from absl import logging

from earvae_jax import command
from earvae_jax.borders import one_line
from earvae_jax.errors import UserError

from . import accepted
from .cases import corpus
from .cases.domains import Case, domain_of, make
from .outcomes import FaultError, Outcome, check_line, general, traceback_fault
from .surroundings import Guard
from .worker import check_output, measured

_KEPT_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Runner:
    """Makes and runs cases in `folder`/case; the inputs' seeds come from `state`."""

    def __init__(self, state: Path, folder: Path, seed: int, said: int):
        self.folder, self.seed, self._said = folder, seed, said
        self.seeds = corpus.make_or_read(state / "corpus")
        self._elsewhere = (folder / "temporary", state / "programs", folder / "said")
        self._records = _Records()
        accepted.install(self.seeds)
        with contextlib.suppress(SystemExit):  # sets up the messages as every command does
            command._run(command._parse(["earvae", "info"]))
        handler = logging.get_absl_handler()
        handler.addFilter(self._records)
        jax.jit(lambda x: x + 1)(1)
        self._options = {name: getattr(jax.config, name) for name in _KEPT_OPTIONS}
        self._guard = Guard()
        gc.collect()
        gc.freeze()

    def run(self, number: int) -> Outcome:
        """One case, from its files to its outcome."""
        domain, here = domain_of(number), self.folder / "case" / "here"
        shutil.rmtree(here.parent, ignore_errors=True)
        here.mkdir(parents=True)
        os.chdir(here)
        try:
            case = make(number, self.seed, self.seeds)
        except Exception:  # noqa: BLE001 - a mistake of the campaign, told as its own cause
            text = traceback.format_exc()
            return Outcome(number, domain, "fault", "", f"harness: {text.splitlines()[-1][:100]}", text)
        (self.folder / "made").write_text(case.made, encoding="utf-8", errors="backslashreplace")
        kind, cause, detail = "result", "", ""
        with measured() as numbers:
            try:
                with self._guard.watching(here.parent, here / "output", self._elsewhere, free=case.free):
                    kind, detail = self._executed(case)
                check_output(here / "output")
            except FaultError as fault:
                kind, cause, detail = "fault", fault.cause, fault.detail
        made, detail = (text.encode("utf-8", "backslashreplace").decode() for text in (case.made, detail))
        return Outcome(number, domain, kind, made, cause, detail, **numbers)

    def _executed(self, case: Case) -> tuple[str, str]:
        os.ftruncate(self._said, 0)
        self._records.clear()
        status, refusal, error = None, None, None
        with self._as_alone():
            try:
                status = _command(case.words) if case.words is not None else _called(case.call)
            except UserError as refused:
                refusal = str(refused)
            except BaseException as thrown:  # noqa: BLE001 - whatever comes out is what is looked for
                error = thrown
            gc.collect()  # what is told of things that nobody waited for belongs to this case
            gc.freeze()  # or every collection would go through all that JAX keeps of earlier cases
        said = os.pread(self._said, 1 << 20, 0).decode("utf-8", "replace")
        if error is not None:
            raise traceback_fault(error)
        if refusal is not None:
            for name in case.names:  # may itself hold a line break; the command writes it out
                refusal = refusal.replace(name, one_line(name))
            check_line(refusal, (*case.names, *map(one_line, case.names)), "UserError")
            self._check_said(said, "library call")
            return "line", refusal
        if case.words is None:
            self._check_said(said, "library call")
            return "result", said[-500:]
        return self._judged(status, said, case)

    def _judged(self, status: int, said: str, case: Case) -> tuple[str, str]:
        who = next((word for word in case.words if word in command._SUBCOMMANDS), "no command")
        if status not in (0, 1, 2):
            raise FaultError(f"exit status {status}: {who}", said)
        errors = [text for level, text in self._records.messages if level >= python_logging.ERROR]
        for text in errors:
            check_line(text, (*case.names, *map(one_line, case.names)), who)
        for level, text in self._records.messages:
            if level >= python_logging.WARNING and len(text.splitlines()) > 1:
                raise FaultError(f"several lines: warning: {general(text)}", text)
        usage = self._check_said(said, who)
        if status and len(errors) + len(usage) == 0:
            raise FaultError(f"says nothing: exit status {status}: {who}", said)
        if status == 2 and len(errors) + len(usage) > 1:
            raise FaultError(f"several lines: exit status 2: {who}", said)
        if status == 0 and errors:
            raise FaultError(f"error with exit status 0: {who}: {general(errors[0])}", said)
        return ("line" if status else "result"), said[-2000:]

    def _check_said(self, said: str, who: str) -> list[str]:
        """The lines of a wrong call; whatever else did not come as a message is a fault."""
        texts = (text.encode("utf-8", "backslashreplace").decode() for _, text in self._records.messages)
        known = {line for text in texts for line in text.splitlines()}
        lines = [line for line in said.splitlines() if line.strip() and line not in known]
        usage = [line for line in lines if line.startswith("earvae") and " --help)" in line]
        other = [line for line in lines if line not in usage]
        if other:
            raise FaultError(f"prints besides its messages: {who}: {general(other[0])}", said)
        return usage

    @contextlib.contextmanager
    def _as_alone(self) -> Iterator[None]:
        """Puts back what a command sets for its whole process."""
        environment, handlers = dict(os.environ), [signal.getsignal(each) for each in _SIGNALS]
        printed = sys.stdout
        sys.stdout = io.StringIO()
        try:
            yield
        finally:
            sys.stdout = printed
            sys.stderr.flush()
            os.chdir(self.folder)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
            for each, handler in zip(_SIGNALS, handlers, strict=True):
                signal.signal(each, handler)
            for name, value in self._options.items():
                jax.config.update(name, value)


class _Records(python_logging.Filter):
    """Remembers what is printed; put behind the command's own filter, and lets everything pass."""

    def __init__(self):
        super().__init__()
        self.messages: list[tuple[int, str]] = []

    def clear(self) -> None:
        self.messages.clear()

    def filter(self, record: python_logging.LogRecord) -> bool:
        text = logging.get_absl_handler().python_handler.formatter.format(record)
        self.messages.append((record.levelno, text))
        return True


def _command(words: list[str]) -> int:
    try:
        command._run(command._parse(["earvae", *words]))
    except SystemExit as ended:
        return ended.code or 0
    raise FaultError("a command came back without an exit status")


def _called(call: Callable[[], object]) -> int:
    call()
    return 0
