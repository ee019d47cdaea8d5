"""What the commands would run on an accelerator, for `--compile-for`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import logging

from earvae_jax import demo
from earvae_jax.audio.reader import AudioReader
from earvae_jax.audio.resampling import resampled_length
from earvae_jax.audio.search import find_audio
from earvae_jax.audio.standard_input import is_standard_input
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.commands.arguments import codec_on
from earvae_jax.infer.engine.cutting import latent_count
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.programs import Half, plan
from earvae_jax.infer.latent_sets.found import find_latents
from earvae_jax.targets.plan import Plan


def encode(arguments: argparse.Namespace, devices: Sequence[jax.Device]) -> Plan:
    """What `earvae encode` runs."""
    return _plan(arguments, devices, _audio_files(arguments), _latents_of_audio, ["encode"])


def decode(arguments: argparse.Namespace, devices: Sequence[jax.Device]) -> Plan:
    """What `earvae decode` runs."""
    found = find_latents(arguments.inputs, output_dir=Path(arguments.output_dir))
    reads = {each.source: each.read for each in found}

    def latents(engine: Engine, path: Path) -> int:
        return len(engine.accepted(reads[path](), path.name).mean)

    return _plan(arguments, devices, list(reads), latents, ["decode"])


def reconstruct(arguments: argparse.Namespace, devices: Sequence[jax.Device]) -> Plan:
    """What `earvae reconstruct` runs."""
    return _plan(arguments, devices, _audio_files(arguments), _latents_of_audio, ["encode", "decode"])


def _audio_files(arguments: argparse.Namespace) -> list[Path]:
    found = find_audio(arguments.inputs or [demo.CLIP], output_dir=Path(arguments.output_dir))
    if any(is_standard_input(path) for path, _ in found):
        raise UserError("--compile-for asks files for their length, which standard input does not have yet")
    return [path for path, _ in found]


def _plan(
    arguments: argparse.Namespace,
    devices: Sequence[jax.Device],
    paths: Sequence[Path],
    length: Callable[[Engine, Path], int],
    halves: Sequence[Half],
) -> Plan:
    """The plan for those files whose length can be read; the others would fail in the call itself."""
    engine = codec_on(devices, arguments).engine
    files, problem = [], None
    for path in paths:
        try:
            files.append(max(1, length(engine, path)))
        except UserError as error:
            problem = str(error)
            logging.warning("%s: is left out", problem)
    if not files:
        raise UserError(f"no file is left to compile for: {problem}")
    seconds = sum(files) * engine.config.downsampling_ratio / engine.sample_rate
    what = f"{len(files)} files" if len(files) > 1 else shown(paths[0].name)
    return plan(
        engine,
        files,
        halves,
        subject=f"{' and '.join(halves)} {what} ({seconds:.1f} s) with {engine.name}, {arguments.dtype}",
    )


def _latents_of_audio(engine: Engine, path: Path) -> int:
    with AudioReader(path) as reader:
        samples = resampled_length(reader.count(), reader.sample_rate, engine.sample_rate)
    return latent_count(engine.config, samples)
