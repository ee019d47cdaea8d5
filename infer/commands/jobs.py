"""The work of a command on many files: resuming, the share of this process, what failed."""

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
    """One input and the output that it has to become."""

    source: Path
    name: str  # of the source, relative to the folder that was given
    output: Path


@dataclasses.dataclass
class Report:
    """What became of the jobs; `status` is the exit status of the command."""

    done: list[Job] = dataclasses.field(default_factory=list)
    skipped: list[Job] = dataclasses.field(default_factory=list)
    unknown: list[Job] = dataclasses.field(default_factory=list)  # already there, but made by who knows what
    failed: list[Job] = dataclasses.field(default_factory=list)

    @property
    def status(self) -> int:
        """0 all done, 1 some file failed."""
        return 1 if self.failed else 0


def writable_folder(path: str | Path) -> Path:
    """Makes the folder; a `UserError` where it cannot be written."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{shown(path)}: is not writable")
    return path


def share(jobs: Sequence[Job], *, process: int = 0, processes: int = 1) -> tuple[list[Job], list[Job]]:
    """The jobs of this process, and those that cannot be because they would write over an input.

    Jobs are dealt out before finished ones are left out, so every process of a run deals alike and no output
    is written twice.
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
    """Runs what is not finished yet and reports each file: a bar on a terminal, a line elsewhere.

    Args:
      made_by: what an existing output says about the model and the settings that made it, "" if nothing.
      this: what outputs of this run say.
    """
    report = Report(failed=list(failed))
    waiting = [job for job in jobs if not _is_there(job, report, overwrite, made_by, this)]
    interactive = sys.stderr.isatty()
    started = time.monotonic()
    with tqdm.tqdm(total=len(waiting), unit="file", disable=not interactive) as bar:

        def done(index: int, error: UserError | None) -> None:
            job = waiting[index]
            bar.update()
            if error is None:
                report.done.append(job)
                if not interactive:
                    logging.info("%s -> %s", shown(job.source), shown(job.output))
            else:
                report.failed.append(job)
                # Readers and writers name the file that they had trouble with.
                named = str(error).startswith((f"{shown(job.source)}:", f"{shown(job.output)}:"))
                logging.error("%s", error if named else f"{shown(job.source)}: {error}")

        codec.run(map(make_task, waiting), done)
    seconds = time.monotonic() - started
    logging.info(
        "%d done in %.1f s, %d already there, %d failed",
        len(report.done),
        seconds,
        len(report.skipped) + len(report.unknown),
        len(report.failed),
    )
    return report


def _is_there(job: Job, report: Report, overwrite: bool, made_by: Callable[[Path], str], this: str) -> bool:
    """Whether there is nothing to do for a job; the report has its place."""
    if overwrite or not os.path.lexists(job.output):
        return False
    maker = made_by(job.output)
    if is_standard_input(job.source):
        logging.error(
            "%s: its output %s is there already, perhaps of another recording: pass --overwrite",
            job.source,
            shown(job.output),
        )
        report.failed.append(job)
    elif maker == this:
        report.skipped.append(job)
    elif not maker:
        logging.info(
            "%s: is kept, though it does not say what made it; --overwrite makes it anew", shown(job.output)
        )
        report.unknown.append(job)
    else:
        logging.error(
            "%s: its output %s is there already, but made with %s; this run has %s: pass --overwrite "
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
    except (OSError, RuntimeError):  # a circle of links
        return path.absolute()
