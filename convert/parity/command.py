"""`earvae parity`: the proof that PyTorch and JAX compute the same from the same weights."""

import argparse
from typing import Any

from earvae_jax.convert.command import WEIGHTS_HELP, add_weights_arguments, stated_options

_SECONDS = 1.0  # of the built-in signal
_LONGEST = 5.0  # seconds of a given file: the output of every layer is kept, in float64 too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the weights, the audio and what to compare with."""
    parser.add_argument("weights", metavar="WEIGHTS", help=WEIGHTS_HELP)
    add_weights_arguments(parser)
    parser.add_argument(
        "--audio", metavar="FILE", help=f"audio file (its first {_LONGEST:g} s); by default a built-in signal"
    )
    parser.add_argument(
        "--reference-dir",
        metavar="CLONE",
        help="your clone of the published PyTorch code, run in place of the port in this package",
    )
    parser.add_argument("--json", metavar="OUT", help="also write the report to this file")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; returns 0 if JAX is about as exact as PyTorch, otherwise 1."""
    import dataclasses
    import sys

    from absl import logging

    from earvae_jax.errors import require
    from earvae_jax.parameters import build

    torch = require("torch", extra="torch")
    from earvae_jax.convert import from_torch
    from earvae_jax.convert.parity import compare as parity

    stated = dataclasses.replace(stated_options(arguments), rate_needed=False)
    weights = from_torch.read(arguments.weights, config=arguments.config, stated=stated)
    config = weights.config
    audio = _audio(arguments.audio, config)
    state = {key: torch.from_numpy(tensor) for key, tensor in weights.file.tensors.items()}
    if arguments.reference_dir is None:
        from earvae_jax.convert.torch_port import model as torch_model

        torch_net: Any

        reference, torch_net = "port", torch_model.build(config, state)
    else:
        from earvae_jax.convert.parity import reference as published_code

        reference, torch_net = "published code", published_code.build(arguments.reference_dir, config, state)
    logging.info("running %d samples in PyTorch (%s), JAX and float64", audio.shape[1], reference)
    report = parity.compare(build(config, weights.arrays), torch_net, audio)
    sys.stdout.write(report.table())
    if arguments.json is not None:
        _write_json(arguments.json, report, weights, reference, audio.shape[1])
    return 0 if report.passed else 1


def _audio(path, config):
    """Audio [1, T, C] at the model's rate, padded if it is shorter than one latent."""
    import numpy as np

    from earvae_jax.audio.channels import to_channels
    from earvae_jax.audio.reader import read
    from earvae_jax.audio.resampling import resample
    from earvae_jax.convert.parity.compare import probe_signal

    if path is None:
        samples = int(_SECONDS * (config.sample_rate or 44_100))
        return probe_signal(max(samples, config.downsampling_ratio), config.io_channels)
    audio, rate = read(path)
    audio = to_channels(audio[: int(_LONGEST * rate)], config.io_channels)
    audio = resample(audio, rate, config.sample_rate or rate)
    missing = max(0, config.downsampling_ratio - len(audio))
    return np.pad(audio, ((0, missing), (0, 0)))[None]


def _write_json(path, report, weights, reference, samples):
    import json

    import jax
    import torch

    from earvae_jax.errors import UserError
    from earvae_jax.system.atomic import replacing

    content = {
        "weights_sha256": weights.file.sha256,
        "published_name": weights.published_name,
        "config": weights.config.to_dict(),
        "samples": samples,
        "reference": reference,
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
