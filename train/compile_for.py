"""What `earvae train` would run on an accelerator, for `--compile-for`."""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from earvae_jax.targets.devices import bytes_of_a_device
from earvae_jax.targets.plan import Growth, Plan, Program
from earvae_jax.train.config import TrainConfig, bundled_or_file
from earvae_jax.train.run.step_program import StepProgram


def train(arguments: argparse.Namespace, devices: Sequence[jax.Device]) -> Plan:
    """The steps of a run, without and with its discriminator, and the state that it keeps on each device.

    What a validation runs is left out: it takes one crop at a time and needs less.
    """
    config = TrainConfig.from_json(bundled_or_file(arguments.config), arguments.overrides)
    state = StepProgram(config, devices).state_shapes()
    optimizers = bytes_of_a_device([state.optimizer, state.discriminator_optimizer])
    resident = {"weights": bytes_of_a_device(state) - optimizers, "optimizer": optimizers}
    step = functools.partial(_step, devices, held=sum(resident.values()))
    kinds = _kinds(config)

    def with_batch(size: int) -> list[Program]:
        return [step(_changed(config, batch_size=size), adversarial=kinds[-1])]

    def with_crop(size: int) -> list[Program]:
        return [step(_changed(config, batch_size=smallest, crop_samples=size), adversarial=kinds[-1])]

    data, smallest = config.data, config.accumulate * len(devices)
    ratio = config.model_config.downsampling_ratio
    growths = [
        Growth("data.batch_size", data.batch_size, smallest, smallest, with_batch),
        Growth(
            f"data.crop_samples with data.batch_size={smallest}",
            data.crop_samples,
            ratio,
            -(-config.shortest_crop // ratio) * ratio,
            with_crop,
        ),
    ]
    programs = [step(config, adversarial=kind) for kind in kinds]
    return Plan(f"{arguments.config}, {config.compute_dtype}", programs, resident, growths)


def _kinds(config: TrainConfig) -> list[bool]:
    """Whether the steps of a run have a discriminator: first without, then with it."""
    adversarial = config.adversarial
    if adversarial is None or adversarial.start_step >= config.steps:
        return [False]
    return [False, True] if adversarial.start_step > 0 else [True]


def _runs(config: TrainConfig, *, adversarial: bool) -> int:
    """How many steps of a kind a whole run has."""
    start = config.steps if config.adversarial is None else min(config.adversarial.start_step, config.steps)
    return config.steps - start if adversarial else start


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def _step(devices: Sequence[jax.Device], config: TrainConfig, *, adversarial: bool, held: int) -> Program:
    data = config.data
    kind = "step with discriminator" if adversarial else "step"
    parts = "" if config.accumulate == 1 else f" in {config.accumulate} parts"
    return Program(
        f"{kind}, {data.batch_size} × {data.crop_samples} samples{parts}",
        lambda: StepProgram(config, devices).lowered(adversarial=adversarial),
        runs=_runs(config, adversarial=adversarial),
        held=held,
        # The batch of the next step comes while this one runs.
        beside=4 * data.batch_size * data.crop_samples * config.model_config.io_channels // len(devices),
    )
