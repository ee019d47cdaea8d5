"""Checks that a config and the weights to start from are those of the run that wrote a checkpoint."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.errors import UserError
from earvae_jax.train.config import OptimizerConfig, TrainConfig
from earvae_jax.train.step.schedules import learning_rate

# Options that may change between two calls with the same workdir; any other change makes it another run.
_CHANGEABLE = frozenset(
    (
        "steps",
        "log_every",
        "validate_every",
        "songs_every",
        "data.songs",
        "checkpoint_every",
        "keep_checkpoints",
        "max_skipped_steps",
        "shard_state",
        "data.threads",
        "data.buffered_batches",
        # A new learning rate also makes another run, but it can rescue one that diverged; see `rate_jumps`.
        "optimizer.learning_rate",
        "adversarial.optimizer.learning_rate",
    )
)


def check_same_run(path: Path, stored: TrainConfig, config: TrainConfig) -> None:
    """Refuses to continue a run with a config that would have made another one.

    Raises:
      UserError: the configs differ; the message names the options.
    """
    different = differing_options(stored.to_dict(), config.to_dict(), besides=_CHANGEABLE)
    if different:
        raise UserError(f"{path}: written with another config ({different}); choose another --workdir")


def rate_jumps(stored: TrainConfig, config: TrainConfig, done: int) -> Iterator[str]:
    """A line for each learning rate that was not, up to step `done`, what this config would have given.

    This happens when a learning rate has changed, or `steps` after the cooldown to the old end had begun.
    """
    old, new = _rates(stored, done), _rates(config, done)
    for name in old:
        (was, _), (would_have_been, comes) = old[name], new[name]
        if was != would_have_been:
            yield (
                f"the {name}'s learning rate goes from {was:.3g} to {comes:.3g}, as the config has changed: "
                "the result will differ from a run with this config from the beginning"
            )


def check_same_origin(workdir: Path, stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> None:
    """Refuses to continue a run that started from other weights than the caller names.

    Args:
      stored: what the checkpoint says about its start: empty for random weights, None in old checkpoints.
      given: the same for the weights that the caller names.

    Raises:
      UserError: the run started from other weights.
    """
    if stored is None:
        logging.warning("%s: does not say what the run started from; --init is ignored", workdir)
    elif stored.get("fingerprint") != given["fingerprint"]:
        began = f"from {_shown(stored)}" if stored else "from random weights"
        raise UserError(
            f"{workdir}: this run started {began}, not from {_shown(given)}; "
            "choose another --workdir, or leave out --init to continue"
        )


def differing_options(
    old: Mapping[str, Any], new: Mapping[str, Any], *, besides: frozenset[str] = frozenset()
) -> str:
    """The first few options whose values differ, by dotted name with both values; empty if none do."""
    old, new = flat(old), flat(new)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    keys = [key for key in keys if key not in besides]
    return ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:5])


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested objects by dotted key."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        name: leaf
        for key, value in values.items()
        for name, leaf in flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def _rates(config: TrainConfig, done: int) -> dict[str, tuple[float, float]]:
    """Learning rates of the last and the next update after `done` steps, for the parts that have begun."""

    def rate(optimizer: OptimizerConfig, start: int, step: int) -> float:
        return float(learning_rate(step - start, optimizer, config.steps - start))

    schedules = {"generator": (config.optimizer, 0)}
    if config.adversarial is not None:
        schedules["discriminator"] = (config.adversarial.optimizer, config.adversarial.start_step)
    return {
        name: (rate(optimizer, start, done - 1), rate(optimizer, start, done))
        for name, (optimizer, start) in schedules.items()
        if done > start
    }


def _shown(origin: Mapping[str, Any]) -> str:
    """Names a start by its file, or by the fingerprint of weights that came from no file."""
    return origin.get("checkpoint") or f"weights {origin['fingerprint'][:8]}"
