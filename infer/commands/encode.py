"""`earvae encode`: write the latents of audio files."""

import argparse
import dataclasses

from earvae_jax.flag_types import positive
from earvae_jax.infer.commands.arguments import (
    add_codec_arguments,
    add_reading_arguments,
    join_processes,
    open_codec,
    reading_options,
)
from earvae_jax.targets import command as compiling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    from earvae_jax.system.processes import add_arguments as add_process_arguments

    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="audio files and folders of them")
    parser.add_argument(
        "--output-dir", required=True, metavar="DIR", help="folder for the NAME.npz files, or for the shards"
    )
    parser.add_argument(
        "--latents",
        default="mean+std",
        choices=("mean", "mean+std"),
        help="what to keep: mean alone is half as large, mean+std can be sampled; default: mean+std",
    )
    parser.add_argument(
        "--latent-dtype",
        default="float32",
        choices=("float32", "float16", "bfloat16"),
        help="number format of the files; default: float32",
    )
    parser.add_argument(
        "--shards",
        choices=("webdataset", "arrayrecord"),
        metavar="KIND",
        help="write many files into each of a few large ones: webdataset (tar files) or arrayrecord",
    )
    parser.add_argument(
        "--shard-size",
        type=positive(float, "megabytes"),
        metavar="MB",
        help="where a shard ends, in 10^6 bytes; default: 256",
    )
    add_reading_arguments(parser)
    add_codec_arguments(parser)
    compiling.add_arguments(parser)
    add_process_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encodes every file; returns 0 if all succeeded, 1 if some file failed."""
    if compiling.is_asked(arguments):
        return compiling.run(arguments, "earvae_jax.infer.commands.compile_for:encode")

    import functools
    from pathlib import Path

    from absl import logging

    from earvae_jax.audio.reader import AudioReader
    from earvae_jax.audio.search import EXTENSIONS, find_audio
    from earvae_jax.borders import shown
    from earvae_jax.errors import UserError
    from earvae_jax.infer.commands.encode_shards import encode_shards
    from earvae_jax.infer.commands.jobs import Job, run_jobs, share, writable_folder
    from earvae_jax.infer.commands.made_with import latent_maker, latents_in_words, made_with
    from earvae_jax.infer.commands.output_names import jobs_for
    from earvae_jax.infer.engine.task import Task
    from earvae_jax.infer.latent_sets.records import shards_in
    from earvae_jax.infer.latent_sets.summaries import write_statistics_of_files
    from earvae_jax.infer.latents import write_latents

    if arguments.shards is None and arguments.shard_size is not None:
        raise UserError("--shard-size says where a shard ends: it goes with --shards")
    if arguments.shards is not None and arguments.overwrite:
        raise UserError(
            "--overwrite would leave old and new latents in one folder of shards: take another --output-dir"
        )
    found = find_audio(arguments.inputs, output_dir=Path(arguments.output_dir))
    output_dir = writable_folder(arguments.output_dir)
    process, processes = join_processes(arguments)
    reading = reading_options(arguments)
    if arguments.shards is not None:
        return encode_shards(
            arguments, found, output_dir, process=process, processes=processes, reading=reading
        )

    if shards_in(output_dir):
        raise UserError(
            f"{shown(output_dir)}: holds latents in shards: take another --output-dir, or pass --shards"
        )
    jobs = jobs_for(found, output_dir, ".npz", EXTENSIONS)
    jobs, refused = share(jobs, process=process, processes=processes)
    codec = open_codec(arguments)
    described = {
        "model_sample_rate": codec.sample_rate,
        "downsampling_ratio": codec.config.downsampling_ratio,
        "compute_dtype": arguments.dtype,
    }
    with_std = arguments.latents == "mean+std"
    held = latents_in_words(arguments.latent_dtype, with_std=with_std)
    this = made_with(codec.model_fingerprint, arguments.dtype, held)

    def task(job: Job) -> Task:
        def keep(latents):
            kept = latents if with_std else dataclasses.replace(latents, std=None)
            write_latents(job.output, kept, dtype=arguments.latent_dtype, metadata=described)

        return Task(job.name, audio=functools.partial(AudioReader, job.source, **reading), keep=keep)

    report = run_jobs(
        codec, jobs, task, failed=refused, overwrite=arguments.overwrite, made_by=latent_maker, this=this
    )
    try:
        write_statistics_of_files(output_dir, codec.model_fingerprint)
    except UserError as error:  # the latents are there; the same command writes what describes them
        logging.error("%s", error)
        return 1
    return report.status
