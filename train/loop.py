"""The training loop: it owns the devices, files and clocks around the pure step of `step.py`."""

import dataclasses
import json
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.vae import EarVAE

from .board import Board
from .config import TrainConfig
from .data import training_batches, training_examples, validation_audio
from .run_checkpoints import Position, RunCheckpoints
from .step import Terms, Trainer, TrainState
from .validation import Validator

_DATA = "data"  # the mesh axis over which batches are split


def train(config: TrainConfig, workdir: Path, *, initial: EarVAE | None = None) -> int:
    """Trains until `config.steps`, or until Ctrl-C or SIGTERM; continues what `workdir` holds.

    At the end and on interruption the run is saved, and the averaged model is written to
    `workdir/model.safetensors`.

    Returns:
      The number of steps done.

    Raises:
      UserError: no usable data, a workdir of another run, too many non-finite steps in a row, a full disk.
    """
    return _Run(config, workdir, initial).run()


class _Run:
    def __init__(self, config: TrainConfig, workdir: Path, initial: EarVAE | None):
        self.config, self.workdir = config, workdir
        mesh = Mesh(np.array(jax.devices()), (_DATA,))
        self.trainer = Trainer(config, mesh)
        part = config.data.batch_size // config.accumulate
        if part % mesh.size:
            raise UserError(
                f"data.batch_size {config.data.batch_size} in {config.accumulate} parts cannot be split over "
                f"{mesh.size} devices"
            )
        self.split = NamedSharding(mesh, PartitionSpec(_DATA))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        rate = self.trainer.model_config.sample_rate
        self.batches = training_batches(
            training_examples(config.data, sample_rate=rate, seed=config.seed),
            config.data,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.validator = Validator(
            self.trainer, validation_audio(config.data, sample_rate=rate, seed=config.seed)
        )
        self.saves = RunCheckpoints(workdir, config)
        self.state = self._starting_state(initial)
        self.step_function = jax.jit(
            self.trainer.step,
            static_argnames="adversarial",
            donate_argnums=0,
            out_shardings=(self.replicated, self.replicated),
        )
        self.first = jax.process_index() == 0
        self.board = Board(workdir / "tensorboard" if self.first else None)
        self.interrupted = False

    def _starting_state(self, initial: EarVAE | None) -> TrainState:
        """The latest checkpoint, or the beginning."""
        if self.saves.latest is None:
            state = self.trainer.initial_state(initial)
            return jax.tree.map(lambda leaf: _replicate(leaf, self.replicated), state)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            self.trainer.state_shapes(),
        )
        state, position = self.saves.restore(target)
        self.batches.set_state(dict(position.batches[jax.process_index()]))
        logging.info("continuing %s at step %d", self.workdir, int(state.step))
        return state

    def run(self) -> int:
        handlers = {
            number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            return self._loop()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.board.close()
            self.batches.close()
            self.saves.close()

    def _interrupt(self, number: int, frame: Any) -> None:
        del number, frame
        self.interrupted = True

    def _loop(self) -> int:
        config, done = self.config, int(self.state.step)
        meter = _Meter(config, self.trainer.model_config.sample_rate, done)
        pending: Terms | None = None
        while done < config.steps and not self._stops():
            audio = jax.make_array_from_process_local_data(self.split, next(self.batches))
            adversarial = config.adversarial is not None and done >= config.adversarial.start_step
            self.state, terms = self.step_function(self.state, audio, adversarial=adversarial)
            done += 1
            # The terms of the step before are read while this one runs.
            self._look_at(pending, meter, done - 1)
            pending = terms
            if (
                done % config.validate_every == 0
                or done % config.checkpoint_every == 0
                or done == config.steps
            ):
                self._look_at(pending, meter, done)
                pending = None
                validate = done % config.validate_every == 0 or done == config.steps
                self._save(done, self._validate(done) if validate else None)
                meter.restart()
        self._look_at(pending, meter, done)
        if self.interrupted:
            self._save(done, None)
        self._export(done)
        return done

    def _stops(self) -> bool:
        """Whether any process was asked to stop: all stop at the same step."""
        if jax.process_count() == 1:
            return self.interrupted
        return bool(np.any(multihost_utils.process_allgather(np.array(self.interrupted))))

    def _look_at(self, terms: Terms | None, meter: "_Meter", done: int) -> None:
        if terms is None:
            return
        values = {name: float(_local(value)) for name, value in terms.items()}
        in_a_row = int(values.pop("skipped_in_a_row"))
        if in_a_row:
            logging.warning("step %d: loss or gradient not finite; the step is skipped", done)
        if in_a_row >= self.config.max_skipped_steps:
            raise UserError(
                f"{self.workdir}: {in_a_row} steps in a row had a non-finite loss or gradient; lower "
                "optimizer.learning_rate or set optimizer.clip_norm. The last good checkpoint is step "
                f"{self.saves.latest}"
            )
        if (averages := meter.add({} if in_a_row else values, done)) is not None:
            self.board.scalars(done, "train", averages)
            if self.first:
                logging.info("%s", meter.line(averages, done))

    def _validate(self, done: int) -> dict[str, float]:
        reconstructions = self.validator.reconstruct(self.state)
        results = self.validator.measure(reconstructions)
        self.board.scalars(done, "validation", results)
        self.board.pairs(done, self.validator.audio, reconstructions, self.validator.sample_rate)
        if self.first:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in results.items())
            logging.info("step %d  validation  %s", done, shown)
        return results

    def _save(self, done: int, metrics: dict[str, float] | None) -> None:
        states = [self.batches.get_state()]
        if jax.process_count() > 1:
            states = _gather_json(states[0])
        self.saves.save(self.state, done, Position(tuple(states)), metrics)

    def _export(self, done: int) -> None:
        """The averaged model as a checkpoint that every other command takes."""
        self.saves.wait()
        if not self.first:
            return
        local = jax.tree.map(
            _local, dataclasses.replace(self.state, optimizer=None, discriminator_optimizer=None)
        )
        provenance = {"trained_steps": done, "training_config": self.config.to_dict()}
        # One file, which one process writes: Orbax would wait for the others.
        path = self.workdir / "model.safetensors"
        checkpoints.save(path, self.trainer.model(local), provenance=provenance, overwrite=True)
        logging.info("step %d of %d: model written to %s", done, self.config.steps, path)


class _Meter:
    """Averages of the terms since the last line, speed and the time left."""

    def __init__(self, config: TrainConfig, sample_rate: int, done: int):
        self.config = config
        self.step_seconds_of_audio = config.data.batch_size * config.data.crop_samples / sample_rate
        self.values: dict[str, list[float]] = {}
        self.steps, self.seconds = 0, 0.0  # of steps alone, without validation
        self.clock = time.monotonic()
        self.first = done + 1  # compiles

    def restart(self) -> None:
        """Leaves out what happened since the last step."""
        self.clock = time.monotonic()

    def add(self, values: dict[str, float], done: int) -> dict[str, float] | None:
        """The averages, whenever `log_every` steps are together."""
        now = time.monotonic()
        if done > self.first:
            self.steps, self.seconds = self.steps + 1, self.seconds + now - self.clock
        self.clock = now
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
        if done % self.config.log_every and done != self.config.steps:
            return None
        averages = {name: float(np.mean(values)) for name, values in self.values.items()}
        self.values = {}
        return averages

    def line(self, averages: dict[str, float], done: int) -> str:
        """Step, losses, audio seconds per second, time left."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in averages.items())
        if not self.steps:
            return f"step {done}/{self.config.steps}  {shown}"
        pace = self.seconds / self.steps
        minutes, seconds = divmod(round(pace * (self.config.steps - done)), 60)
        left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        speed = self.step_seconds_of_audio / pace
        return f"step {done}/{self.config.steps}  {shown}  {speed:.2f} s of audio per s, {left} left"


def _replicate(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: np.asarray(leaf)[index])


def _local(array: jax.Array) -> jax.Array:
    """What this process holds of a replicated array."""
    return array.addressable_data(0)


def _gather_json(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(data)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:length])) for row, length in zip(rows, lengths, strict=True)]
