"""Exports the averaged model of a run as checkpoints that every other command takes."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from earvae_jax import checkpoints
from earvae_jax.errors import UserError
from earvae_jax.model.vae import EarVAE
from earvae_jax.system.atomic import replacing
from earvae_jax.system.between_processes import local
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.validation import SCORE


class Exports:
    """Writes `workdir/model.safetensors`, and copies it to `best.safetensors` when validation improves.

    It writes at each validation, so that a killed run leaves a model; that is a quarter of the size of a
    checkpoint. It writes safetensors because one process can do so alone: Orbax would wait for the others.

    Args:
      origin: what the provenance says about the weights that training started from; empty if random.
    """

    def __init__(self, workdir: Path, trainer: Trainer, origin: Mapping[str, Any]):
        self.path, self._best = workdir / "model.safetensors", workdir / "best.safetensors"
        self._trainer, self._origin = trainer, origin
        self._best_score = _score_in(self._best)
        self._written: int | None = None

    def model(self, state: TrainState) -> EarVAE:
        """The averaged model of a state, as one process holds it."""
        bare = dataclasses.replace(state, optimizer=None, discriminator=None, discriminator_optimizer=None)
        return self._trainer.model(jax.tree.map(local, bare))

    def write(self, state: TrainState, results: Mapping[str, float] | None = None) -> None:
        """Writes the model of a state with its validation results, once for each step.

        Raises:
          UserError: the disk is full or fails.
        """
        step = int(local(state.step))
        if step == self._written:
            return
        provenance = {
            "trained_steps": step,
            "training_config": self._trainer.config.to_dict(),
            **({"origin": self._origin} if self._origin else {}),
            **({"validation": dict(results)} if results else {}),
        }
        checkpoints.save(self.path, self.model(state), provenance=provenance, overwrite=True)
        score = (results or {}).get(SCORE)
        if score is not None and (self._best_score is None or score > self._best_score):
            try:
                with replacing(self._best) as temporary:
                    shutil.copyfile(self.path, temporary)
            except OSError as error:
                raise UserError(f"{self._best}: cannot be written: {error.strerror or error}") from None
            self._best_score = score
            logging.info("step %d: the best model so far, written to %s", step, self._best)
        self._written = step


def _score_in(path: Path) -> float | None:
    """The score of the model in a file, so that it counts after a restart; None where there is none."""
    if not path.exists():
        return None
    try:
        return checkpoints.read_info(path).provenance.get("validation", {}).get(SCORE)
    except UserError as error:
        logging.warning("%s; the next validation replaces it", error)
        return None
