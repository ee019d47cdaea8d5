"""`earvae decode`: write the audio of latent files."""

import argparse

from earvae_jax.infer.commands.arguments import (
    add_audio_output_arguments,
    add_codec_arguments,
    add_sampling_arguments,
    join_processes,
    open_codec,
    sampling_words,
)
from earvae_jax.targets import command as compiling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    from earvae_jax.system.processes import add_arguments as add_process_arguments

    parser.add_argument("inputs", nargs="+", metavar="LATENTS", help=".npz files, shards, folders of them")
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="folder for the audio files")
    add_audio_output_arguments(parser)
    add_sampling_arguments(parser)
    add_codec_arguments(parser)
    compiling.add_arguments(parser)
    add_process_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decodes every file; returns 0 if all succeeded, 1 if some file failed."""
    if compiling.is_asked(arguments):
        return compiling.run(arguments, "earvae_jax.infer.commands.compile_for:decode")

    from pathlib import Path

    from earvae_jax.audio.search import EXTENSIONS
    from earvae_jax.infer.commands.audio_output import audio_writer
    from earvae_jax.infer.commands.jobs import Job, run_jobs, share, writable_folder
    from earvae_jax.infer.commands.made_with import audio_maker, made_with
    from earvae_jax.infer.commands.output_names import jobs_for
    from earvae_jax.infer.engine.task import Task
    from earvae_jax.infer.latent_sets.found import find_latents

    found = find_latents(arguments.inputs, output_dir=Path(arguments.output_dir))
    output_dir = writable_folder(arguments.output_dir)
    process, processes = join_processes(arguments)
    reads = {each.source: each.read for each in found}
    # An item of a shard has the name of its audio file.
    endings = {".npz", *EXTENSIONS}
    jobs = jobs_for([(each.source, each.name) for each in found], output_dir, f".{arguments.format}", endings)
    jobs, refused = share(jobs, process=process, processes=processes)
    codec = open_codec(arguments)

    this = made_with(codec.model_fingerprint, arguments.dtype, sampling_words(arguments))

    def task(job: Job) -> Task:
        return Task(
            job.name,
            latents=reads[job.source],
            write=audio_writer(job.output, arguments.format, this),
            latent=arguments.latent,
            seed=arguments.seed,
        )

    return run_jobs(
        codec, jobs, task, failed=refused, overwrite=arguments.overwrite, made_by=audio_maker, this=this
    ).status
