"""`earvae evaluate`: compare reconstructions with their originals as published, and write a report."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "originals",
        metavar="ORIGINALS",
        help="folder of originals (or one file); given alone: a folder of pairs NAME.wav, NAME_vae_rec.wav",
    )
    parser.add_argument(
        "reconstructions",
        nargs="?",
        metavar="RECONSTRUCTIONS",
        help="folder with files of the same names (or one file)",
    )
    parser.add_argument(
        "--output-dir", metavar="DIR", help="folder for the results; default: beside the reconstructions"
    )
    parser.add_argument(
        "--report-files",
        type=_count,
        default=12,
        metavar="N",
        help="files to play and draw in report.html, lowest SI-SDR first; 0: no report; default: 12",
    )
    parser.add_argument(
        "--excerpt-seconds",
        type=_seconds,
        default=15.0,
        metavar="S",
        help="length of each file's loudest part in report.html; default: 15",
    )
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="folder for compiled programs, or off; default: $EARVAE_CACHE_DIR or the user's cache folder",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every pair; returns 1 if a file had no partner or could not be compared, else 0."""
    from pathlib import Path

    from earvae_jax.infer.commands.jobs import writable_folder
    from earvae_jax.infer.evaluation.pairs import find_models
    from earvae_jax.infer.evaluation.report import evaluate_into
    from earvae_jax.system.compilation_cache import enable_compilation_cache

    models = find_models(arguments.originals, arguments.reconstructions)
    chosen = Path(arguments.output_dir) if arguments.output_dir else None
    folders = [
        writable_folder(
            model.folder if chosen is None else chosen if len(models) == 1 else chosen / model.name
        )
        for model in models
    ]
    enable_compilation_cache(arguments.compilation_cache)
    options = {"files": arguments.report_files, "excerpt_seconds": arguments.excerpt_seconds}
    evaluations = [
        evaluate_into(model, folder, **options) for model, folder in zip(models, folders, strict=True)
    ]
    return 1 if any(evaluation.failures for evaluation in evaluations) else 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of files")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time between 0 and 3600 seconds")
    return seconds
