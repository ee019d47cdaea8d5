"""Everything that is noted of a run for people: curves, warnings, whole songs and the summary page."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.system.between_processes import local
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.run.exports import Exports
from earvae_jax.train.run.songs import Songs, song_means
from earvae_jax.train.step.schedules import adversarial_share
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.watch.board import Board
from earvae_jax.train.watch.health import Warnings, latent_measures, side_change
from earvae_jax.train.watch.history import History
from earvae_jax.train.watch.pulls import Pulls, sizes
from earvae_jax.train.watch.summary import SUMMARY, write_summary
from earvae_jax.train.watch.validation import Validator

_SONG = "song "  # and its name: the group of its curves, which a page after a restart is written from
_PULLED = 4  # crops at which the terms' pulls are looked at; a mean over more says the same


class Watcher:
    """Notes what happens; the first process writes, but all must call it, as all compute.

    Args:
      after: the step after which a run continues; None in a new one.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: Path,
        trainer: Trainer,
        validator: Validator,
        exports: Exports,
        *,
        after: int | None,
    ):
        self._config, self._page = config, workdir / SUMMARY
        self._first = jax.process_index() == 0
        self._validator, self._exports = validator, exports
        self._pulls, self._warnings = Pulls(trainer), Warnings(config)
        self._songs = Songs(config.data.songs if self._first else (), config.sample_rate)
        self._board = Board(workdir / "tensorboard" if self._first else None, after=after)
        self._history = History(workdir / "history.jsonl" if self._first else None, after=after)
        self._measured_songs = self._history.last(_SONG)

    def trained(self, step: int, averages: Mapping[str, float], skipped: Mapping[str, int]) -> None:
        """Notes the averages of the terms of some steps, and how much was skipped so far."""
        self._note(step, "train", averages)
        self._note(step, "skipped", skipped)
        self._warn(step, averages)

    def validated(
        self,
        step: int,
        state: TrainState,
        reconstructions: Float[np.ndarray, "I T C"],
        results: Mapping[str, float],
        gains: Mapping[str, float],
    ) -> None:
        """Notes a validation, looks at latents, terms and songs, and writes the page."""
        self._note(step, "validation", results)
        self._note(step, "gain_over_transform", gains)
        self._board.pairs(step, self._validator.audio, reconstructions, self._validator.sample_rate)
        latents = self._validator.latents(state)
        health = latent_measures(np.asarray(latents.mean), np.asarray(latents.std))
        change = side_change(self._validator.audio, reconstructions)
        if change is not None:
            health["side_change_db"] = change
        self._note(step, "health", health)
        self._warn(step, health)
        adversarial, share = self._config.adversarial, None
        if adversarial is not None and step > adversarial.start_step:
            share = float(adversarial_share(step, adversarial))
        some = slice(_PULLED)
        pulls = self._pulls(
            jax.tree.map(local, state.discriminator),
            reconstructions[some],
            self._validator.audio[some],
            share=share,
        )
        self._note(step, "pull", sizes(pulls))
        if self._songs and (step % self._config.songs_every == 0 or step == self._config.steps):
            self._measure_songs(step, state)
        if self._first:
            write_summary(
                self._page,
                self._config,
                self._history.curves,
                step=step,
                warnings=[*self._warnings.active.values()],
                songs=self._measured_songs,
            )

    def close(self) -> None:
        """Writes what is buffered."""
        self._board.close()

    def _measure_songs(self, step: int, state: TrainState) -> None:
        self._measured_songs = self._songs.measure(self._exports.model(state))
        means = song_means(self._measured_songs)
        self._note(step, "songs", means)
        for name, values in self._measured_songs.items():
            self._history.add(step, f"{_SONG}{name}", values)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        logging.info("step %d  %d whole songs  %s", step, len(self._measured_songs), shown)

    def _note(self, step: int, group: str, values: Mapping[str, float]) -> None:
        self._board.scalars(step, group, values)
        self._history.add(step, group, values)

    def _warn(self, step: int, measured: Mapping[str, float]) -> None:
        for line in self._warnings.changes(measured):
            if self._first:
                logging.warning("step %d: %s", step, line)
