"""The checkpoints of a training run: state, data position and config, written by Orbax in the background."""

import contextlib
import dataclasses
import errno
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from earvae_jax.checkpoints import explaining_damage
from earvae_jax.errors import UserError
from earvae_jax.parameters import differences
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.run.same_run import check_same_run
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.watch.validation import SCORE

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Record:
    """What a checkpoint holds besides the arrays."""

    config: TrainConfig
    position: tuple[Mapping[str, Any], ...]  # of each process's batches, in the order of the processes
    data: str | None  # fingerprint of the training data; None in checkpoints of older versions
    # The weights that training started from: empty if random; None in checkpoints of older versions.
    origin: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """The record as values for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_dict(),
            "position": list(self.position),
            "data": self.data,
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Record":
        """Reads what `to_dict` of this format version gave."""
        config = TrainConfig.from_dict(values["config"])
        return cls(config, tuple(values["position"]), values.get("data"), values.get("origin"))


class RunCheckpoints:
    """Saves and restores a run in `workdir/checkpoints`; keeps the latest few and the best.

    A saved state is never lost: a checkpoint gets its name once it is whole, older ones are deleted only
    then, and half-written ones of a killed process are ignored.
    """

    def __init__(self, workdir: Path, config: TrainConfig):
        self.directory, self.config = workdir / "checkpoints", config
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            # A reconstruction that is constant or not finite has no score.
            get_metric_fn=lambda metrics: metrics.get(SCORE, -math.inf),
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._check_metrics()
        with _explained(self.directory):
            self._checkpointer = ocp.training.Checkpointer(
                self.directory.absolute(),
                # Every call saves; without this, a save is skipped while another one is running.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(config.keep_checkpoints), best]
                ),
                cleanup_tmp_directories=True,
            )
        self._saving: ocp.AsyncResponse[bool] | None = None

    def _check_metrics(self) -> None:
        """Checks the metrics of all checkpoints: Orbax reads them and does not say which are damaged."""
        for path in sorted(self.directory.glob("*/metrics/metrics")):
            checkpoint = path.parents[1]
            if checkpoint.name.isdigit():  # half-written ones are passed over
                with explaining_damage(checkpoint, "; delete this folder to continue without it"):
                    json.loads(path.read_text())

    @property
    def latest(self) -> int | None:
        """The step of the latest whole checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, step: int, record: Record, metrics: Mapping[str, float] | None) -> None:
        """Waits for the previous save, starts this one, and returns once the arrays are copied.

        Raises:
          UserError: the previous save failed, for example on a full disk.
        """
        self.wait()
        if self.latest == step:
            return
        with _explained(self.directory):
            self._saving = self._checkpointer.save_async(
                step,
                _named(state),
                metrics=dict(metrics) if metrics else None,
                custom_metadata=record.to_dict(),
            )

    def wait(self) -> None:
        """Waits until the running save is on the disk."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with _explained(self.directory):
                saving.result()

    def restore(self, target: TrainState) -> tuple[TrainState, Record]:
        """Reads the latest checkpoint; `target` has shapes and shardings (`jax.ShapeDtypeStruct`).

        Raises:
          UserError: it was written with another config, version or number of processes, or is damaged.
        """
        *before, step = (checkpoint.step for checkpoint in self._checkpointer.checkpoints)
        path = self.directory / str(step)
        way_on = f"continue from step {before[-1]}" if before else "begin again"
        with explaining_damage(path, f"; delete this folder to {way_on}"):
            metadata = self._checkpointer.metadata(step)
            values = metadata.custom_metadata
            if not values:
                raise ValueError("its metadata is missing")
            record = self._checked(path, values)
            if metadata.metadata is None:
                raise ValueError("its arrays cannot be listed")
            expected = _named(target)
            problems = differences(expected, metadata.metadata)
            if problems:
                raise UserError(f"{path}: does not fit the config: {'; '.join(problems[:10])}")
            arrays = self._checkpointer.load(step, expected)
        return _unnamed(target, arrays), record

    def _checked(self, path: Path, values: Mapping[str, Any]) -> Record:
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: training checkpoint format {version}; this version reads {FORMAT_VERSION}"
            )
        try:
            record = Record.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        check_same_run(path, record.config, self.config)
        written, running = len(record.position), jax.process_count()
        if written != running:
            raise UserError(f"{path}: written by {written} processes; continue with {written}, not {running}")
        return record

    def close(self) -> None:
        """Waits, then stops the background threads."""
        try:
            self.wait()
        finally:
            with _explained(self.directory):
                self._checkpointer.close()


def _named(state: TrainState) -> dict[str, Any]:
    """The leaves by path: restoring by position could silently permute layers."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _unnamed(target: TrainState, arrays: Mapping[str, Any]) -> TrainState:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator=".")], target
    )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turns the error of a failed save into one line that says which checkpoints are safe."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on the disk" if full else (str(error).splitlines() or [repr(error)])[0][:200]
        raise UserError(
            f"{directory}: saving failed: {reason}; earlier checkpoints are whole; the same command continues"
        ) from error
