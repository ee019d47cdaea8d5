"""The programs that an engine runs for some files, for `--compile-for`: named, and not compiled."""

import collections
import functools
from collections.abc import Sequence
from typing import Literal

from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.tiling import Tiling
from earvae_jax.targets.devices import bytes_of_a_device
from earvae_jax.targets.plan import Growth, Plan, Program

_FLOAT32 = 4  # bytes
Half = Literal["encode", "decode"]


def plan(engine: Engine, files: Sequence[int], halves: Sequence[Half], *, subject: str) -> Plan:
    """All that an engine runs to encode or decode files.

    Args:
      files: latents of each.
      subject: the model and how it is computed, for people.
    """
    programs = []
    for half in halves:
        if half == "decode":
            programs += layer_programs(engine, files)
        for (count, size), runs in _calls(engine, files, half).items():
            programs.append(window_program(engine, half, count, size, runs))
    compiled = engine.compiled
    weights = [compiled.encoder_weights, compiled.decoder_weights]
    if engine.config.transformer is not None:
        weights.append(compiled.transformer_weights)
    largest = max(engine.encoder_tiling.sizes)
    growth = Growth(
        "--batch-size",
        now=engine.batch_size.of(largest),
        step=len(compiled.devices),
        least=len(compiled.devices),
        programs=lambda count: [window_program(engine, half, count, largest) for half in halves],
    )
    return Plan(subject, programs, {"weights": bytes_of_a_device(weights)}, [growth])


def _calls(engine: Engine, files: Sequence[int], half: Half) -> dict[tuple[int, int], int]:
    """The batches of windows of all files: (windows, latents of each), and how many such there are."""
    tiling: Tiling = engine.encoder_tiling if half == "encode" else engine.decoder_tiling
    windows = collections.Counter(window.size for latents in files for window in tiling.plan(latents))
    return {
        (count, size): runs
        for size, number in sorted(windows.items(), reverse=True)
        for count, runs in engine.batch_size.calls(number, size).items()
    }


def window_program(engine: Engine, half: Half, count: int, size: int, runs: int = 1) -> Program:
    """Encoder or decoder for `count` windows of `size` latents."""
    compiled = engine.compiled
    lower, weights = {
        "encode": (compiled.lowered_encoder, compiled.encoder_weights),
        "decode": (compiled.lowered_decoder, compiled.decoder_weights),
    }[half]
    config = engine.config
    values = count * size * (config.downsampling_ratio * config.io_channels + 2 * config.latent_dim)
    others = (engine.in_flight - 1) * values * _FLOAT32 // len(compiled.devices)
    return Program(
        f"{half} {count} × {size} latents",
        functools.partial(lower, count, size),
        runs,
        held=bytes_of_a_device(weights),
        beside=others,
    )


def layer_programs(engine: Engine, files: Sequence[int]) -> list[Program]:
    """A layer of the transformer for each length of the sequence; all layers share a program."""
    compiled = engine.compiled
    if engine.config.transformer is None:
        return []
    of_length: dict[int, list[int]] = collections.defaultdict(list)
    for latents in files:
        of_length[compiled.sequence_length(latents)].append(latents)
    held = bytes_of_a_device(compiled.transformer_weights[0])
    return [
        Program(
            f"transformer layer {length} latents",
            functools.partial(compiled.lowered_layer, 0, some[0]),
            len(some) * len(compiled.transformer_weights),
            held,
        )
        for length, some in sorted(of_length.items(), reverse=True)
    ]
