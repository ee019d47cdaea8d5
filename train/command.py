"""`earvae train`: train a model, or continue a run."""

import argparse
from typing import TYPE_CHECKING, Any

from earvae_jax.system import processes
from earvae_jax.targets import command as compiling

if TYPE_CHECKING:  # the command line must not wait for JAX
    from earvae_jax.train.config import TrainConfig

_MOST_FLAGS = 4  # that a message spells out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--config", required=True, help="training config: a JSON file, or the name of a bundled one"
    )
    parser.add_argument("--workdir", required=True, help="folder of the run; a run in it is continued")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the config, such as optimizer.learning_rate=1e-4; may be repeated",
    )
    parser.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="start from this model's weights (fine-tuning): a checkpoint, or weights of PyTorch",
    )
    compiling.add_arguments(parser)
    processes.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trains; returns 0 once the run is finished, or interrupted and saved."""
    if compiling.is_asked(arguments):
        return compiling.run(arguments, "earvae_jax.train.compile_for:train")

    from pathlib import Path

    from absl import logging

    from earvae_jax.errors import require
    from earvae_jax.system.compilation_cache import enable_compilation_cache
    from earvae_jax.system.heap import keep_freed_memory, use_one_heap

    require("grain", extra="train")
    require("tensorboardX", extra="train")
    use_one_heap()
    keep_freed_memory()
    enable_compilation_cache()
    processes.join(arguments)

    from earvae_jax.train.config import TrainConfig, bundled_or_file
    from earvae_jax.train.run.loop import train

    with processes.leaving_others_at_failure():
        config = TrainConfig.from_json(bundled_or_file(arguments.config), arguments.overrides)
        start = {} if arguments.init is None else _initial_model(arguments.init, config)
        done = train(config, Path(arguments.workdir), **start)
    if done < config.steps:
        logging.info("stopped at step %d of %d; the same command continues", done, config.steps)
    return 0


def _initial_model(path: str, config: "TrainConfig") -> dict[str, Any]:
    """The arguments of `train` for a model to start from."""
    from earvae_jax import checkpoints
    from earvae_jax.errors import UserError
    from earvae_jax.train.run.same_run import differing_options

    model, info = checkpoints.load_with_info(path)
    theirs, ours = model.config.to_dict(), config.model_config.to_dict()
    if different := differing_options(theirs, ours):
        raise UserError(
            f"{path}: its config differs from `model` in the training config ({different}): "
            f"{_advice(theirs, ours)}"
        )
    return {"initial": model, "origin": {"checkpoint": path, "provenance": info.provenance}}


def _advice(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """How to make `model` that of the weights: the flags, where these are few."""
    import json

    from earvae_jax.train.run.same_run import flat

    wanted, given = flat(theirs), flat(ours)
    changed = {key: value for key, value in wanted.items() if given.get(key) != value}
    if len(changed) > _MOST_FLAGS or given.keys() - wanted.keys():
        return "make them equal"
    return "add " + " ".join(f"--set model.{key}={json.dumps(value)}" for key, value in changed.items())
