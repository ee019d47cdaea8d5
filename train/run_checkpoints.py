"""The checkpoints of a training run: state, data position and config, written by Orbax in the background."""

import contextlib
import dataclasses
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from earvae_jax.errors import UserError
from earvae_jax.parameters import differences

from .config import TrainConfig
from .step import TrainState

FORMAT_VERSION = 1
SCORE = "si_sdr"  # the validation result that the best checkpoint has the highest of
# What may change between two calls with the same workdir; everything else would make another run of it.
_CHANGEABLE = frozenset(
    (
        "steps",
        "log_every",
        "validate_every",
        "checkpoint_every",
        "keep_checkpoints",
        "max_skipped_steps",
        "data.threads",
        "data.buffered_batches",
    )
)


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands in its data: the state of every process's batches, in the order of the processes."""

    batches: tuple[Mapping[str, Any], ...]


class RunCheckpoints:
    """Saves and restores a run in `workdir/checkpoints`; keeps the latest few and the best.

    Nothing is lost that was saved: a checkpoint gets its name when it is whole, older ones are deleted after
    that, and what a killed process left half-written is ignored.
    """

    def __init__(self, workdir: Path, config: TrainConfig):
        self.directory, self.config = workdir / "checkpoints", config
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[SCORE], n=1, keep_checkpoints_without_metrics=False
        )
        self._checkpointer = ocp.training.Checkpointer(
            self.directory.absolute(),
            # Every call saves; without this a save is skipped while another one is in flight.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(config.keep_checkpoints), best]
            ),
            cleanup_tmp_directories=True,
        )
        self._saving: ocp.AsyncResponse[bool] | None = None

    @property
    def latest(self) -> int | None:
        """The step of the latest whole checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(
        self, state: TrainState, step: int, position: Position, metrics: Mapping[str, float] | None
    ) -> None:
        """Starts to save; returns once the arrays are copied, and waits for the save before this one.

        Raises:
          UserError: the save before this one failed, such as on a full disk.
        """
        self.wait()
        if self.latest == step:
            return
        metadata = {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_dict(),
            "position": list(position.batches),
        }
        with _explained(self.directory):
            self._saving = self._checkpointer.save_async(
                step, _named(state), metrics=dict(metrics) if metrics else None, custom_metadata=metadata
            )

    def wait(self) -> None:
        """Until what was being saved is on the disk."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with _explained(self.directory):
                saving.result()

    def restore(self, target: TrainState) -> tuple[TrainState, Position]:
        """The latest checkpoint; `target` has shapes and shardings (`jax.ShapeDtypeStruct`).

        Raises:
          UserError: it was written with another config, version or number of processes, or is damaged.
        """
        step = self.latest
        path = self.directory / str(step)
        try:
            metadata = self._checkpointer.metadata(step)
            values = metadata.custom_metadata
            if not values:
                raise ValueError("its metadata is missing")
            self._check(path, values)
            expected = _named(target)
            problems = differences(expected, metadata.metadata)
            if problems:
                raise UserError(f"{path}: does not fit the config: {'; '.join(problems[:10])}")
            arrays = self._checkpointer.load(step, expected)
        except UserError:
            raise
        except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{path}: damaged checkpoint ({reason}); delete this folder to continue from the one before"
            ) from None
        return _unnamed(target, arrays), Position(tuple(values["position"]))

    def _check(self, path: Path, values: Mapping[str, Any]) -> None:
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: training checkpoint format {version}; this version reads {FORMAT_VERSION}"
            )
        check_same_run(path, values["config"], self.config)
        written, running = len(values["position"]), jax.process_count()
        if written != running:
            raise UserError(f"{path}: written by {written} processes; continue with as many, not {running}")

    def close(self) -> None:
        """Waits, then stops the background threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()


def check_same_run(path: Path, stored: Mapping[str, Any], config: TrainConfig) -> None:
    """Refuses to continue a run with a config that would have made another one, naming the differences."""
    old, new = _flat(stored), _flat(config.to_dict())
    different = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    different = [key for key in different if key not in _CHANGEABLE]
    if different:
        shown = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in different[:5])
        raise UserError(f"{path}: written with another config ({shown}); choose another --workdir")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        name: leaf
        for key, value in values.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def _named(state: TrainState) -> dict[str, Any]:
    """The leaves by path: restoring by position could permute layers without a word."""
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
    """Turns the errors of a failed save into a line that says what is safe."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on the disk" if full else (str(error).splitlines() or [repr(error)])[0][:200]
        raise UserError(
            f"{directory}: saving failed: {reason}; earlier checkpoints are whole, the same command continues"
        ) from error
