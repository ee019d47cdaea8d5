"""`earvae encode`: write the latents of audio files."""

import argparse

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
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="folder for the NAME.npz files")
    parser.add_argument(
        "--latent-dtype",
        default="float32",
        choices=("float32", "float16"),
        help="number format of the files; default: float32",
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

    from earvae_jax.audio.reader import AudioReader
    from earvae_jax.audio.search import EXTENSIONS, find_audio
    from earvae_jax.infer.commands.jobs import Job, run_jobs, share, writable_folder
    from earvae_jax.infer.commands.made_with import latent_maker, made_with
    from earvae_jax.infer.commands.output_names import jobs_for
    from earvae_jax.infer.engine.task import Task
    from earvae_jax.infer.latents import write_latents

    found = find_audio(arguments.inputs, output_dir=Path(arguments.output_dir))
    output_dir = writable_folder(arguments.output_dir)
    process, processes = join_processes(arguments)
    jobs = jobs_for(found, output_dir, ".npz", EXTENSIONS)
    jobs, refused = share(jobs, process=process, processes=processes)
    codec = open_codec(arguments)
    described = {
        "model_sample_rate": codec.sample_rate,
        "downsampling_ratio": codec.config.downsampling_ratio,
        "compute_dtype": arguments.dtype,
    }

    reading = reading_options(arguments)
    this = made_with(codec.model_fingerprint, arguments.dtype, f"{arguments.latent_dtype} latents")

    def task(job: Job) -> Task:
        def keep(latents):
            write_latents(job.output, latents, dtype=arguments.latent_dtype, metadata=described)

        return Task(job.name, audio=functools.partial(AudioReader, job.source, **reading), keep=keep)

    return run_jobs(
        codec, jobs, task, failed=refused, overwrite=arguments.overwrite, made_by=latent_maker, this=this
    ).status
