"""Runs a command on many files: skips finished ones, takes this process's share, collects failures."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tqdm
from absl import logging

from earvae_jax.audio.standard_input import is_standard_input
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.task import Task

if TYPE_CHECKING:
    from earvae_jax.infer.codec import Codec


@dataclasses.dataclass(frozen=True)
class Job:
    """One input and its output."""

    source: Path
    name: str  # of the source, relative to the given folder
    output: Path


@dataclasses.dataclass
class Report:
    """The outcome of all jobs; `status` is the exit status of the command."""

    done: list[Job] = dataclasses.field(default_factory=list)
    skipped: list[Job] = dataclasses.field(default_factory=list)
    unknown: list[Job] = dataclasses.field(default_factory=list)  # exist, but do not say what made them
    failed: list[Job] = dataclasses.field(default_factory=list)

    @property
    def status(self) -> int:
        """0 if all are done, 1 if some file failed."""
        return 1 if self.failed else 0


def writable_folder(path: str | Path) -> Path:
    """Makes the folder; raises a `UserError` if that fails or it cannot be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{shown(path)}: is not writable")
    return path


def share(jobs: Sequence[Job], *, process: int = 0, processes: int = 1) -> tuple[list[Job], list[Job]]:
    """This process's share of the jobs, and those of it that are refused as they would overwrite an input.

    Finished jobs are dealt out too, so all processes of a run deal alike and no output is written twice.
    """
    sources = {_resolved(job.source) for job in jobs}
    possible, refused = [], []
    for job in jobs[process::processes]:
        if job.output.exists() and job.source.exists() and job.output.samefile(job.source):
            logging.error(
                "%s: would be replaced by its own output; use another --output-dir", shown(job.source)
            )
            refused.append(job)
        elif _resolved(job.output) in sources:
            logging.error(
                "%s: its output %s is an input too; use another --output-dir",
                shown(job.source),
                shown(job.output),
            )
            refused.append(job)
        else:
            possible.append(job)
    return possible, refused


def run_jobs(
    codec: "Codec",
    jobs: Sequence[Job],
    make_task: Callable[[Job], Task],
    *,
    failed: Sequence[Job] = (),
    overwrite: bool,
    made_by: Callable[[Path], str],
    this: str,
) -> Report:
    """Runs the unfinished jobs and shows progress: a bar on a terminal, elsewhere a line for each file.

    Args:
      failed: jobs to report as failed from the start.
      made_by: reads which model and settings an existing output says made it, "" if it says nothing.
      this: what the outputs of this run say.
    """
    report = Report(failed=list(failed))
    waiting = [job for job in jobs if not _is_there(job, report, overwrite, made_by, this)]
    with Counter(report, len(waiting)) as counter:

        def done(index: int, error: UserError | None) -> None:
            job = waiting[index]
            counter.advance()
            if error is None:
                counter.succeeded(job, job.output)
            else:
                counter.failed(job, error)

        codec.run(map(make_task, waiting), done)
    return report


class Counter:
    """Reports jobs as they end, and shows progress: a bar on a terminal, elsewhere a line for each file.

    A context manager; at its end it says how many jobs came out how, unless an exception ends the run.
    """

    def __init__(self, report: Report, total: int):
        self._report, self._started = report, time.monotonic()
        self._interactive = sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=total, unit="file", disable=not self._interactive)

    def advance(self) -> None:
        """One more job has been worked on."""
        self._bar.update()

    def succeeded(self, job: Job, place: Path) -> None:
        """A job's result has its place."""
        self._report.done.append(job)
        if not self._interactive:
            logging.info("%s -> %s", shown(job.source), shown(place))

    def failed(self, job: Job, error: UserError) -> None:
        """A job failed."""
        self._report.failed.append(job)
        # Errors of readers and writers already name the file.
        named = str(error).startswith((f"{shown(job.source)}:", f"{shown(job.output)}:"))
        logging.error("%s", error if named else f"{shown(job.source)}: {error}")

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if kind is None:
            logging.info(
                "%d done in %.1f s, %d already there, %d failed",
                len(self._report.done),
                time.monotonic() - self._started,
                len(self._report.skipped) + len(self._report.unknown),
                len(self._report.failed),
            )


def _is_there(job: Job, report: Report, overwrite: bool, made_by: Callable[[Path], str], this: str) -> bool:
    """Whether the output of a job exists already; if so, the job goes into the report."""
    if overwrite or not os.path.lexists(job.output):
        return False
    maker = made_by(job.output)
    if is_standard_input(job.source):
        logging.error(
            "%s: its output %s exists already, perhaps from another recording: pass --overwrite",
            job.source,
            shown(job.output),
        )
        report.failed.append(job)
    elif maker == this:
        report.skipped.append(job)
    elif not maker:
        logging.info(
            "%s: exists already and is kept, but does not say what made it; pass --overwrite to replace it",
            shown(job.output),
        )
        report.unknown.append(job)
    else:
        logging.error(
            "%s: its output %s exists already, but was made with %s; this run uses %s: pass --overwrite "
            "or another --output-dir",
            shown(job.source),
            shown(job.output),
            maker,
            this,
        )
        report.failed.append(job)
    return True


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # symbolic links in a circle
        return path.absolute()
