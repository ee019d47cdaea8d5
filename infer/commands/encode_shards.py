"""`earvae encode --shards`: the latents of many audio files in a few large files."""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.audio.reader import AudioReader
from earvae_jax.audio.standard_input import is_standard_input
from earvae_jax.errors import UserError
from earvae_jax.infer.commands.arguments import open_codec
from earvae_jax.infer.commands.jobs import Counter, Job, Report
from earvae_jax.infer.commands.output_names import jobs_for
from earvae_jax.infer.engine.task import Task
from earvae_jax.infer.latent_sets.records import Settings, write_summaries
from earvae_jax.infer.latent_sets.shards import check_installed
from earvae_jax.infer.latent_sets.store import ShardStore
from earvae_jax.infer.latents import Latents

_MEGABYTES = 256.0  # some hours of music; what a kill can cost to encode again


def encode_shards(
    arguments: argparse.Namespace,
    found: Sequence[tuple[Path, Path]],
    output_dir: Path,
    *,
    process: int,
    processes: int,
    reading: Mapping[str, Any],
) -> int:
    """Encodes this process's share of the files, and describes all shards that are there.

    A file counts as done, and is reported, when its shard has its name. Returns the exit status.
    """
    check_installed(arguments.shards)
    # Endings are kept: another recording of the same song that comes later must not change a name.
    jobs = jobs_for(found, Path(), "", ())[process::processes]
    codec = open_codec(arguments)
    settings = Settings(
        arguments.shards,
        codec.model_fingerprint,
        codec.sample_rate,
        codec.config.downsampling_ratio,
        codec.config.latent_dim,
        arguments.latent_dtype,
        arguments.latents,
        arguments.dtype,
    )
    by_name = {str(job.output): job for job in jobs}
    report = Report()

    def committed(names: list[str], shard: Path) -> None:
        for name in names:
            counter.succeeded(by_name[name], shard)

    def lost(names: list[str], error: UserError) -> None:
        for name in names:
            counter.failed(by_name[name], error)

    store = ShardStore(
        output_dir,
        settings,
        model_name=codec.engine.name,
        size=1e6 * (arguments.shard_size or _MEGABYTES),
        process=process,
        processes=processes,
        committed=committed,
        lost=lost,
    )
    waiting = [job for job in jobs if not _is_there(job, store, report)]

    def task(job: Job) -> Task:
        def keep(latents: Latents) -> None:
            store.add(str(job.output), latents)

        return Task(job.name, audio=functools.partial(AudioReader, job.source, **reading), keep=keep)

    with Counter(report, len(waiting)) as counter, store:

        def done(index: int, error: UserError | None) -> None:
            counter.advance()
            if error is not None:
                counter.failed(waiting[index], error)

        codec.run(map(task, waiting), done)
    try:
        write_summaries(output_dir)
    except UserError as error:  # the latents are there; the same command writes what describes them
        logging.error("%s", error)
        return 1
    return report.status


def _is_there(job: Job, store: ShardStore, report: Report) -> bool:
    """Whether a file is in a shard already; if so, the job goes into the report."""
    if str(job.output) not in store.done:
        return False
    if is_standard_input(job.source):
        logging.error(
            "%s: these shards have a recording from it already: take another --output-dir", job.source
        )
        report.failed.append(job)
    else:
        report.skipped.append(job)
    return True
