"""The training loop: it owns the devices, files and clocks around the pure step of `step.py`."""

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from earvae_jax.errors import UserError
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import check_fits_in_memory, fingerprint, named_arrays
from earvae_jax.system.between_processes import failing_together, gather, local
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.data.batches import training_batches, training_examples, validation_audio
from earvae_jax.train.run.agreement import Agreement
from earvae_jax.train.run.checkpoints import Record, RunCheckpoints
from earvae_jax.train.run.exports import Exports
from earvae_jax.train.run.same_run import check_same_origin, rate_jumps
from earvae_jax.train.run.step_program import StepProgram
from earvae_jax.train.run.watcher import Watcher
from earvae_jax.train.run.workdir import claim
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Terms
from earvae_jax.train.watch.progress import Progress
from earvae_jax.train.watch.validation import SCORE, Validator


def train(
    config: TrainConfig,
    workdir: Path,
    *,
    initial: EarVAE | None = None,
    origin: Mapping[str, Any] | None = None,
) -> int:
    """Trains until `config.steps`, or until Ctrl-C or SIGTERM; continues what `workdir` holds.

    It saves the run at the end and on interruption. At each validation and at the end it writes the averaged
    model to `workdir/model.safetensors`, and the best by validation to `workdir/best.safetensors`.

    Args:
      initial: the model to start from, instead of random weights.
      origin: what the written models' provenance says about `initial`, such as its file.

    Returns:
      The number of steps done.

    Raises:
      UserError: the model does not fit in memory, no data is usable, the workdir is another run's, too many
        steps in a row are not finite, or the disk is full.
    """
    check_fits_in_memory(config.model_config)
    with contextlib.ExitStack() as stack:
        with failing_together():
            if jax.process_index() == 0:
                stack.enter_context(claim(workdir))
        return _Run(config, workdir, initial, origin or {}).run()


def train_to_the_end(config: TrainConfig, workdir: Path) -> None:
    """`train` for programs that need the finished model afterwards.

    Raises:
      KeyboardInterrupt: the run was interrupted; the same call continues it.
    """
    if train(config, workdir) < config.steps:
        raise KeyboardInterrupt


class _Run:
    def __init__(self, config: TrainConfig, workdir: Path, initial: EarVAE | None, origin: Mapping[str, Any]):
        self.config, self.workdir = config, workdir
        self.first = jax.process_index() == 0
        self.interrupted = False
        self.program = StepProgram(config, jax.devices())
        self.trainer = self.program.trainer
        rate = config.sample_rate
        with failing_together():
            self.examples = training_examples(config.data, sample_rate=rate, seed=config.seed)
            held_out = validation_audio(config.data, sample_rate=rate, seed=config.seed)
        self.batches = training_batches(
            self.examples,
            config.data,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.validator = Validator(self.trainer, held_out)
        self.saves = RunCheckpoints(workdir, config)
        if initial is not None:
            origin = {**origin, "fingerprint": fingerprint(named_arrays(initial))}
        if self.saves.latest is None:
            self.origin: Mapping[str, Any] | None
            self.origin, after = origin, None
            self.state = self.program.initial_state(initial)
        else:
            self.state, self.origin = self._continued(origin)
            after = int(self.state.step)
        self.skipped = int(self.state.skipped)
        self.progress = Progress(config, rate)
        self.exports = Exports(workdir, self.trainer, self.origin or {})
        self.watcher = Watcher(config, workdir, self.trainer, self.validator, self.exports, after=after)

    def _continued(self, origin: Mapping[str, Any]) -> tuple[TrainState, Mapping[str, Any] | None]:
        """State and origin of the latest checkpoint."""
        saved, record = self.saves.restore(self.program.saved_shapes())
        state = self.program.from_saved(saved)
        if origin:
            check_same_origin(self.workdir, record.origin, origin)
        self.batches.set_state(dict(record.position[jax.process_index()]))
        done = int(state.step)
        logging.info("continuing %s at step %d", self.workdir, done)
        for line in rate_jumps(record.config, self.config, done):
            logging.warning("step %d: %s", done, line)
        if record.data not in (None, self.examples.fingerprint):
            logging.warning(
                "step %d: training files were added, removed or changed since the checkpoint: from here on "
                "crops come in another order than in an uninterrupted run",
                done,
            )
        return state, record.origin

    def run(self) -> int:
        with contextlib.ExitStack() as ending:  # what is entered last ends first, whatever fails
            for number in (signal.SIGINT, signal.SIGTERM):
                ending.callback(signal.signal, number, signal.signal(number, self._interrupt))
            ending.callback(self.batches.close)
            ending.callback(self.watcher.close)
            ending.callback(self.saves.close)
            return self._loop()

    def _interrupt(self, number: int, frame: Any) -> None:
        del number, frame
        self.interrupted = True

    def _loop(self) -> int:
        config, done, stopped = self.config, int(self.state.step), False
        pending: Terms | None = None
        compiled: set[bool] = set()
        # All processes stop at the same step; `interrupted` belongs to one process and decides nothing else.
        agreement = Agreement()
        while done < config.steps and not (stopped := agreement.to_stop(self.interrupted)):
            audio = jax.make_array_from_process_local_data(self.program.split, next(self.batches))
            adversarial = config.adversarial is not None and done >= config.adversarial.start_step
            if adversarial not in compiled and self.first:
                kind = "step with a discriminator" if adversarial else "step"
                logging.info("step %d: compiling the %s; a cached one is quick", done, kind)
            compiled.add(adversarial)
            self.state, terms = self.program.run(self.state, audio, adversarial=adversarial)
            done += 1
            self.progress.started(done, adversarial=adversarial)
            # The terms of the step before are read while this one runs.
            self._look_at(pending, done - 1)
            pending = terms
            validates = done % config.validate_every == 0 or done == config.steps
            if validates or done % config.checkpoint_every == 0:
                self._look_at(pending, done)
                pending = None
                if validates:
                    self._validate_and_save(done)
                else:
                    self._save(done, None)
                self.progress.pause()
        self._look_at(pending, done)
        if stopped:
            self._save(done, None)
        self.saves.wait()
        self._export()
        if self.first:
            logging.info("step %d of %d: model written to %s", done, config.steps, self.exports.path)
        return done

    def _look_at(self, terms: Terms | None, done: int) -> None:
        if terms is None:
            return
        values = {name: float(local(value)) for name, value in terms.items()}
        in_a_row = int(values.pop("skipped_in_a_row"))
        if in_a_row:
            self.skipped += 1
            logging.warning("step %d: loss or gradient not finite; the step is skipped", done)
        if in_a_row >= self.config.max_skipped_steps:
            self._give_up(in_a_row)
        if (averages := self.progress.add({} if in_a_row else values, done)) is not None:
            skipped = {"steps": self.skipped, "files": len(self.examples.skipped)}
            self.watcher.trained(done, averages, skipped)
            if self.first:
                logging.info("%s", self.progress.line(averages, done, skipped))

    def _give_up(self, in_a_row: int) -> None:
        self._export()
        latest, rate = self.saves.latest, self.config.optimizer.learning_rate / 2
        way_on = "begin again" if latest is None else f"continue from step {latest}"
        raise UserError(
            f"{self.workdir}: {in_a_row} steps in a row had a non-finite loss or gradient; to {way_on}, "
            f"repeat the command with --set optimizer.learning_rate={rate:g}; to start a new run with other "
            f"options from the averaged weights so far, use --init {self.exports.path} --workdir NEW"
        )

    def _validate_and_save(self, done: int) -> None:
        reconstructions = self.validator.reconstruct(self.state)
        results = self.validator.measure(reconstructions)
        gains = self.validator.gains(results)
        if self.first:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in results.items())
            logging.info("step %d  validation  %s", done, shown)
            better = "  ".join(f"{name} {gain:+.3f}" for name, gain in gains.items())
            logging.info("step %d  gain over a cosine transform  %s", done, better)
            if SCORE not in results:
                logging.warning("step %d: reconstructions are constant or not finite: no %s", done, SCORE)
            # Before the checkpoint: a run that is killed in between comes here again with the same model.
            try:
                self.exports.write(self.state, results)
            except UserError as error:
                logging.warning("%s", error)
        self._save(done, results)
        self.watcher.validated(done, self.state, reconstructions, results, gains)

    def _save(self, done: int, metrics: Mapping[str, float] | None) -> None:
        position = tuple(gather(self.batches.get_state()))
        record = Record(self.config, position, self.examples.fingerprint, self.origin)
        self.saves.save(self.program.to_save(self.state), done, record, metrics)

    def _export(self) -> None:
        with failing_together():
            if self.first:
                self.exports.write(self.state)
