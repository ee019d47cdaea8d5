"""`earvae reconstruct`: encode and decode audio files."""

import argparse

from earvae_jax.infer.commands.arguments import (
    add_audio_output_arguments,
    add_codec_arguments,
    add_reading_arguments,
    add_sampling_arguments,
    join_processes,
    open_codec,
    reading_options,
    sampling_words,
)
from earvae_jax.targets import command as compiling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    from earvae_jax.system.processes import add_arguments as add_process_arguments

    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="audio files and folders of them; default: a clip that comes with the package",
    )
    parser.add_argument(
        "--output-dir", default="results", metavar="DIR", help="folder for the outputs; default: results"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="measure the outputs against the inputs and write report.html beside them",
    )
    add_reading_arguments(parser)
    add_audio_output_arguments(parser)
    add_sampling_arguments(parser)
    add_codec_arguments(parser)
    compiling.add_arguments(parser)
    add_process_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reconstructs every file; returns 0 if all succeeded, 1 if some file failed."""
    if compiling.is_asked(arguments):
        return compiling.run(arguments, "earvae_jax.infer.commands.compile_for:reconstruct")

    import functools
    from pathlib import Path

    from absl import logging

    from earvae_jax import demo
    from earvae_jax.audio.reader import AudioReader
    from earvae_jax.audio.search import EXTENSIONS, find_audio
    from earvae_jax.audio.standard_input import is_standard_input
    from earvae_jax.borders import shown
    from earvae_jax.errors import UserError
    from earvae_jax.infer.commands.audio_output import audio_writer
    from earvae_jax.infer.commands.jobs import Job, run_jobs, share, writable_folder
    from earvae_jax.infer.commands.made_with import audio_maker, made_with
    from earvae_jax.infer.commands.output_names import jobs_for
    from earvae_jax.infer.engine.task import Task

    if not arguments.inputs:
        if not demo.CLIP.exists():
            raise UserError("no audio given: earvae reconstruct FILE_OR_FOLDER …")
        logging.info("no audio given: using the bundled clip of synthetic music")
    found = find_audio(arguments.inputs or [demo.CLIP], output_dir=Path(arguments.output_dir))
    if arguments.report and any(is_standard_input(source) for source, _ in found):
        raise UserError("--report reads its inputs twice, which standard input does not allow: give a file")
    output_dir = writable_folder(arguments.output_dir)
    process, processes = join_processes(arguments)
    if arguments.report and processes > 1:
        raise UserError("--report sees the files of one process only: run earvae evaluate afterwards")
    jobs = jobs_for(found, output_dir, f".{arguments.format}", EXTENSIONS)
    jobs, refused = share(jobs, process=process, processes=processes)
    codec = open_codec(arguments)

    reading = reading_options(arguments)
    this = made_with(codec.model_fingerprint, arguments.dtype, sampling_words(arguments))

    def task(job: Job) -> Task:
        return Task(
            job.name,
            audio=functools.partial(AudioReader, job.source, **reading),
            write=audio_writer(job.output, arguments.format, this),
            latent=arguments.latent,
            seed=arguments.seed,
        )

    report = run_jobs(
        codec, jobs, task, failed=refused, overwrite=arguments.overwrite, made_by=audio_maker, this=this
    )
    finished = [*report.done, *report.skipped]
    if not arguments.report or not finished:
        return report.status
    # Imported this late because measuring and drawing take a second to import.
    from earvae_jax.infer.evaluation.pairs import Model, Pair
    from earvae_jax.infer.evaluation.report import evaluate_into

    for job in report.unknown:
        logging.warning(
            "%s: is left out of the report, because it does not say what made it", shown(job.output)
        )
    finished.sort(key=lambda job: job.name)
    pairs = [Pair(shown(job.name), job.source, job.output) for job in finished]
    evaluation = evaluate_into(Model(output_dir.resolve().name, output_dir, pairs, {}), output_dir)
    return 1 if evaluation.failures else report.status
