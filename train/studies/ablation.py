"""Measures what each part of the objective is worth: `python -m earvae_jax.train.studies.ablation WORKDIR`.

Trains by the demo's recipe (`configs/train_demo.json`) on a fifteenth of its steps, once with the whole
objective and once without each part, from the same seed on the same crops, and measures all of them on the
same held-out music. The whole objective from another seed, on other crops, shows how large a difference is
chance. After an interruption the same command continues.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.signal.metrics import NAMES as METRICS
from earvae_jax.system.atomic import replacing
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.data.batches import validation_audio
from earvae_jax.train.run.loop import train_to_the_end
from earvae_jax.train.watch.validation import mean_metrics

# Changes of the recipe, as `earvae train --set` takes them.
BUDGET = (
    "steps=400",
    "optimizer.cooldown_steps=130",
    "ema_decay=0.99",
    "data.validation_items=32",
    "log_every=100",
    "validate_every=400",
    "checkpoint_every=200",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "whole objective": {},
    "another seed": {"seed": 1},
    "without correlation": {"correlation": 0.0},
    "without IF and GD": {"instantaneous_frequency": 0.0, "group_delay": 0.0},
    "without K-weighting": {"k_weighting": False},
    "without MSLR (left and right alone)": {"mid_side": False},
}


def recipe() -> TrainConfig:
    """The demo's recipe with the changes of `BUDGET`."""
    with resources.as_file(resources.files("earvae_jax.configs") / "train_demo.json") as path:
        return TrainConfig.from_json(path, BUDGET)


def ablation(config: TrainConfig, workdir: Path) -> dict[str, dict[str, float]]:
    """Trains each variant in a folder of its own; returns its mean metrics over the held-out crops."""
    results = {}
    for name, changes in VARIANTS.items():
        folder = workdir / name.split(" (")[0].replace(" ", "_")
        logging.info("%s", name)
        train_to_the_end(_variant(config, **changes), folder)
        results[name] = _measured(config, folder / "model.safetensors")
    return results


def _variant(config: TrainConfig, *, seed: int = 0, **changes: Any) -> TrainConfig:
    objective = dataclasses.replace(config.objective, **changes)
    return dataclasses.replace(config, seed=config.seed + seed, objective=objective)


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as a Markdown table."""
    lines = ["| objective | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, values in results.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[metric]:.3f}" for metric in METRICS) + " |")
    return "\n".join(lines) + "\n"


def _measured(config: TrainConfig, path: Path) -> dict[str, float]:
    model = checkpoints.load(path)
    rate = config.sample_rate
    crops = validation_audio(config.data, sample_rate=rate, seed=config.seed)
    reconstruct = jax.jit(lambda audio: model.decode(model.encode(audio).mean))
    reconstructions = np.concatenate([np.asarray(reconstruct(crop[None])) for crop in crops])
    return mean_metrics(crops, reconstructions, rate)


def main(words: Sequence[str] | None = None) -> None:
    """Runs all variants, prints the table and keeps the figures in `WORKDIR/ablation.json`."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.ablation", description=__doc__)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="folder for a run of each variant")
    workdir = parser.parse_args(words).workdir
    enable_compilation_cache()
    results = ablation(recipe(), workdir)
    with replacing(workdir / "ablation.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    run_program(main)
