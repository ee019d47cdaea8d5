"""Training runs for tests of what is around the step, and a look at what they saved."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import small_training

from earvae_jax.model.bottleneck import Posterior
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.pulls import Pulls
from earvae_jax.train.watch.validation import Validator

COMMAND = "from earvae_jax.command import main; main()"


def config(**changes) -> TrainConfig:
    """Without a discriminator, and a checkpoint at every step."""
    return small_training.config(**({"adversarial": None, "steps": 4, "checkpoint_every": 1} | changes))


def lighten(monkeypatch, *, bad_from: int | None = None) -> None:
    """Replaces the step by one that counts, and validation by one that hears almost the original,
    with latents in order, at which no term pulls.

    Steps from `bad_from` on are not finite.
    """

    def step(self, state: TrainState, audio, *, adversarial):
        bad = jnp.int32(0) if bad_from is None else (state.step + 1 >= bad_from).astype(jnp.int32)
        in_a_row = (state.skipped_in_a_row + 1) * bad
        counters = {"step": state.step + 1, "skipped": state.skipped + bad, "skipped_in_a_row": in_a_row}
        terms = {"loss": jnp.mean(audio**2), "skipped_in_a_row": in_a_row}
        return dataclasses.replace(state, **counters), terms

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Validator, "reconstruct", lambda self, state: self.audio + np.float32(1e-3))
    mean = np.random.default_rng(0).standard_normal((2, 8, 4), np.float32)
    monkeypatch.setattr(Validator, "latents", lambda self, state: Posterior(mean, np.full_like(mean, -5)))
    # Their programs take longer to compile than the rest of a run does.
    still = {"waveform": np.zeros((1, 8, 2), np.float32)}
    monkeypatch.setattr(Pulls, "__call__", lambda *given, share: still)


def state_of(workdir: Path, config: TrainConfig) -> dict[str, np.ndarray]:
    """The latest checkpoint's arrays by name, however many processes saved them."""
    from orbax.checkpoint import v1 as ocp

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    trainer = Trainer(config)
    target = {
        jax.tree_util.keystr(path, simple=True, separator="."): jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=device
        )
        for path, leaf in jax.tree.leaves_with_path(jax.eval_shape(trainer.unstacked, trainer.state_shapes()))
    }
    latest = workdir.absolute() / "checkpoints" / str(saved_steps(workdir)[-1])
    return {name: np.asarray(array) for name, array in ocp.load(latest, target).items()}


def assert_same_run(first: Path, second: Path, config: TrainConfig) -> None:
    """Bit for bit: weights, averages, both optimizers and the counters."""
    first, second = state_of(first, config), state_of(second, config)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def saved_steps(workdir: Path) -> list[int]:
    """The steps of which there are checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def write_config(path: Path, config: TrainConfig) -> Path:
    """For the command."""
    path.write_text(json.dumps(config.to_dict()))
    return path


def run_command(config_file: Path, workdir: Path, *more, before: str = "", **options) -> subprocess.Popen:
    """`earvae train` in a process of its own, after the statements `before`."""
    words = ("train", "--config", config_file, "--workdir", workdir, *more)
    return run_earvae(*words, before=before, **options)


def run_earvae(*words, before: str = "", **options) -> subprocess.Popen:
    """`earvae` in a process of its own, after the statements `before`."""
    command = [sys.executable, "-c", f"{before}\n{COMMAND}", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
