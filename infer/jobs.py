"""The work of a command on many files: outputs, resuming, the share of this process, what failed."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tqdm
from absl import logging

from earvae_jax.errors import UserError

from .pipeline import Task


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
        raise UserError(f"{path}: cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{path}: is not writable")
    return path


def share(
    found: Sequence[tuple[Path, Path]], output_dir: Path, suffix: str, *, process: int = 0, processes: int = 1
) -> tuple[list[Job], list[Job]]:
    """The jobs of this process, and those that cannot be because their output belongs to another input.

    Inputs are dealt out before finished ones are left out, so every process of a run deals alike and no
    output is written twice.
    """
    owners: dict[Path, Path] = {}
    sources = {source.resolve() for source, _ in found}
    jobs, clashes = [], []
    for index, (source, relative) in enumerate(found):
        output = output_dir / relative.with_suffix(suffix)
        job = Job(source, str(relative), output)
        owner = owners.setdefault(output, source)
        if index % processes != process:
            continue
        if owner != source:
            logging.error("%s: its output %s is that of %s; use another --output-dir", source, output, owner)
            clashes.append(job)
        elif output.exists() and output.samefile(source):
            logging.error("%s: would be replaced by its own output; use another --output-dir", source)
            clashes.append(job)
        elif output.resolve() in sources:
            logging.error("%s: its output %s is an input too; use another --output-dir", source, output)
            clashes.append(job)
        else:
            jobs.append(job)
    return jobs, clashes


def run_jobs(
    codec,
    jobs: Sequence[Job],
    make_task: Callable[[Job], Task],
    *,
    failed: Sequence[Job] = (),
    overwrite: bool,
) -> Report:
    """Runs what is not finished yet and reports each file: a bar on a terminal, a line elsewhere."""
    report = Report(failed=list(failed))
    waiting = []
    for job in jobs:
        if job.output.exists() and not overwrite:
            report.skipped.append(job)
        else:
            waiting.append(job)
    interactive = sys.stderr.isatty()
    started = time.monotonic()
    with tqdm.tqdm(total=len(waiting), unit="file", disable=not interactive) as bar:

        def done(index: int, error: UserError | None) -> None:
            job = waiting[index]
            bar.update()
            if error is None:
                report.done.append(job)
                if not interactive:
                    logging.info("%s -> %s", job.source, job.output)
            else:
                report.failed.append(job)
                # Readers and writers name the file that they had trouble with.
                named = str(error).startswith((f"{job.source}:", f"{job.output}:"))
                logging.error("%s", error if named else f"{job.source}: {error}")

        codec.run(map(make_task, waiting), done)
    seconds = time.monotonic() - started
    logging.info(
        "%d done in %.1f s, %d already there, %d failed",
        len(report.done),
        seconds,
        len(report.skipped),
        len(report.failed),
    )
    return report
