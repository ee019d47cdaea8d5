"""`earvae parity`: the proof that PyTorch and JAX compute the same from the same weights."""

import argparse

from earvae_jax.convert.command import WEIGHTS_HELP, add_weights_arguments, stated_options

_SECONDS = 1.0  # of the built-in signal
_LONGEST = 5.0  # seconds of a given file: the output of every layer is kept, in float64 too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the weights, the audio and what to compare with."""
    parser.add_argument("weights", metavar="WEIGHTS", help=f"{WEIGHTS_HELP}, or a checkpoint")
    add_weights_arguments(parser)
    parser.add_argument(
        "--audio", metavar="FILE", help=f"audio file (its first {_LONGEST:g} s); by default a built-in signal"
    )
    reference = parser.add_mutually_exclusive_group()
    reference.add_argument(
        "--reference",
        default="port",
        choices=("port", "diffusers"),
        help="compare with the port in this package, or with diffusers' AutoencoderOobleck; default: port",
    )
    reference.add_argument(
        "--reference-dir",
        metavar="CLONE",
        help="compare with the published PyTorch code, in your clone of it",
    )
    parser.add_argument("--json", metavar="OUT", help="also write the report to this file")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; returns 0 if JAX is about as exact as PyTorch, otherwise 1."""
    import dataclasses
    import sys

    from absl import logging

    from earvae_jax.errors import require

    require("torch", extra="torch")
    from earvae_jax.convert.parity import compare as parity
    from earvae_jax.convert.parity import given as sources
    from earvae_jax.convert.parity import references

    stated = dataclasses.replace(stated_options(arguments), rate_needed=False)
    given = sources.read(arguments.weights, config=arguments.config, stated=stated)
    audio = _audio(arguments.audio, given.config)
    if arguments.reference_dir is not None:
        reference = references.of_published_code(arguments.reference_dir, given)
    else:
        reference = references.KINDS[arguments.reference](given)
    logging.info("running %d samples in PyTorch (%s), JAX and float64", audio.shape[1], reference.kind)
    report = parity.compare(given.model, reference.module, audio)
    sys.stdout.write(f"reference: {reference.in_words()}\n{report.table()}")
    if arguments.json is not None:
        _write_json(arguments.json, report, given, reference, audio.shape[1])
    return 0 if report.passed else 1


def _audio(path, config):
    """Audio [1, T, C] at the model's rate, of a multiple of eight latents; a shorter file is padded.

    On a CPU with AVX-512 XLA sums the last of 24k + 1 steps in one go, such as the last of 25 latents, and
    rounds it ten times as much as the others. The codec's windows never have so many.
    """
    import numpy as np

    from earvae_jax.audio.channels import to_channels
    from earvae_jax.audio.reader import read
    from earvae_jax.audio.resampling import resample
    from earvae_jax.convert.parity.compare import probe_signal

    eight = 8 * config.downsampling_ratio
    if path is None:
        samples = int(_SECONDS * (config.sample_rate or 44_100))
        return probe_signal(-(-samples // eight) * eight, config.io_channels)
    audio, rate = read(path)
    audio = to_channels(audio[: int(_LONGEST * rate)], config.io_channels)
    audio = resample(audio, rate, config.sample_rate or rate)
    samples = max(1, len(audio) // eight) * eight
    return np.pad(audio[:samples], ((0, max(0, samples - len(audio))), (0, 0)))[None]


def _write_json(path, report, given, reference, samples):
    import json

    import jax
    import torch

    from earvae_jax.errors import UserError
    from earvae_jax.system.atomic import replacing

    content = {
        **given.described,
        "config": given.config.to_dict(),
        "samples": samples,
        "reference": reference.kind,
        "reference_version": reference.version,
        "torch": torch.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        **report.to_dict(),
    }
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
