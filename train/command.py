"""`earvae train`."""

import argparse

from earvae_jax import processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "--config", required=True, help="training config: a JSON file, or the name of a bundled one"
    )
    parser.add_argument("--workdir", required=True, help="folder of the run; the same folder continues it")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the config, such as optimizer.learning_rate=1e-4; may be repeated",
    )
    parser.add_argument("--init", metavar="CHECKPOINT", help="start from this model's weights (fine-tuning)")
    processes.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trains; 0 when the run is finished or was interrupted and saved."""
    from pathlib import Path

    from absl import logging

    from earvae_jax.compilation_cache import enable_compilation_cache
    from earvae_jax.errors import require

    require("grain", extra="train")
    require("tensorboardX", extra="train")
    enable_compilation_cache()
    processes.join(arguments)

    from .loop import train

    config = _config(arguments.config, arguments.overrides)
    initial = None
    if arguments.init is not None:
        initial = _initial_model(arguments.init, config)
    done = train(config, Path(arguments.workdir), initial=initial)
    if done < config.steps:
        logging.info("stopped at step %d of %d; the same command continues", done, config.steps)
    return 0


def _config(name: str, overrides: list[str]):
    from pathlib import Path

    from earvae_jax.errors import UserError

    from .config import BUNDLED, TrainConfig

    path = Path(name)
    if not path.exists() and path.name == name:
        path = BUNDLED / name
        if not path.exists():
            bundled = ", ".join(sorted(found.name for found in BUNDLED.glob("train_*.json")))
            raise UserError(f"{name}: no such config file, here or bundled ({bundled})")
    return TrainConfig.from_json(path, overrides)


def _initial_model(path: str, config):
    from earvae_jax import checkpoints
    from earvae_jax.errors import UserError

    model = checkpoints.load(path)
    if model.config != config.model_config:
        raise UserError(f"{path}: holds a model of another config than the training config's `model`")
    return model
