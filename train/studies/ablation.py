"""Measures what each part of the objective is worth: `python -m earvae_jax.train.studies.ablation WORKDIR`.

Trains by the demo's recipe (`configs/train_demo.json`) on a small part of its steps, with the whole objective
and with each change of it, each from several seeds. A seed decides the initial weights, the crops and their
order, so the variants of one seed differ in the objective alone, and the difference from the whole objective
is taken within a seed. All are measured on the same held-out music. After an interruption the same command
continues.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.signal.metrics import NAMES as METRICS
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.system.heap import keep_freed_memory, use_one_heap
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.data.batches import validation_audio
from earvae_jax.train.run.loop import train_to_the_end
from earvae_jax.train.studies.trained import TRANSFORM, demo_recipe, reconstructions, write_figures
from earvae_jax.train.watch.validation import by_transform, mean_metrics

# Changes of the recipe, as `earvae train --set` takes them.
BUDGET = (
    "steps=600",
    "optimizer.cooldown_steps=200",
    "ema_decay=0.998",
    "data.validation_items=32",
    "log_every=100",
    "validate_every=2000",
    "checkpoint_every=250",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "whole objective": {},
    "without correlation": {"correlation": 0.0},
    "without IF and GD": {"instantaneous_frequency": 0.0, "group_delay": 0.0},
    "without K-weighting": {"k_weighting": False},
    "without MSLR (left and right alone)": {"mid_side": False},
    "published phase losses (no wrapping, no weighting)": {"wrap": False, "weighting": None},
}
Results = dict[str, list[dict[str, float]]]  # the metrics for each seed, by the variant's name


def recipe(changes: Sequence[str] = ()) -> TrainConfig:
    """The demo's recipe with the changes of `BUDGET` and those given."""
    return demo_recipe((*BUDGET, *changes))


def ablation(config: TrainConfig, workdir: Path, seeds: int, names: Sequence[str] = ()) -> Results:
    """Trains each variant from each seed in a folder of its own and measures it on the held-out crops.

    `names` chooses variants by how their names begin. Seeds come one after the other, so that an early look
    finds all variants of the first.
    """
    rate = config.sample_rate
    crops = validation_audio(config.data, sample_rate=rate, seed=config.seed)
    results: Results = {}
    for seed in range(seeds):
        for name, changes in VARIANTS.items():
            if names and not any(name.startswith(each) for each in names):
                continue
            folder = workdir / f"{name.split(' (')[0].replace(' ', '_')}_{seed}"
            kept = folder / "measured.json"
            if not kept.exists():
                logging.info("%s, seed %d", name, seed)
                objective = dataclasses.replace(config.objective, **changes)
                train_to_the_end(
                    dataclasses.replace(config, seed=config.seed + seed, objective=objective), folder
                )
                made = reconstructions(checkpoints.load(folder / "model.safetensors"), crops)
                write_figures(kept, mean_metrics(crops, made, rate))
            results.setdefault(name, []).append(json.loads(kept.read_text(encoding="utf-8")))
    return results


def of_transform(config: TrainConfig) -> dict[str, float]:
    """The metrics of a fixed cosine transform of the model's rate on the same crops."""
    rate = config.sample_rate
    crops = validation_audio(config.data, sample_rate=rate, seed=config.seed)
    return mean_metrics(crops, by_transform(crops, config.model_config), rate)


def table(results: Results, transform: dict[str, float]) -> str:
    """Mean ± standard deviation over the seeds, and of the differences from the first variant; Markdown.

    Beside the means stand those of a transform.
    """
    first = next(iter(results.values()))

    def own(values, metric):
        return [each[metric] for each in values]

    def difference(values, metric):
        pairs = zip(own(values, metric), own(first, metric), strict=True)
        return [value - whole for value, whole in pairs]

    seeds = f"{len(first)} seed" + ("s" if len(first) != 1 else "")
    return (
        f"Means ± standard deviations over {seeds}:\n\n"
        + _rows({TRANSFORM: [transform], **results}, own, "{:.3f}")
        + "\nDifferences from the first row within a seed:\n\n"
        + _rows(dict(list(results.items())[1:]), difference, "{:+.3f}")
    )


def _rows(results: Results, values_of: Callable[..., list[float]], mean_format: str) -> str:
    lines = ["| objective | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, values in results.items():
        cells = []
        for metric in METRICS:
            found = values_of(values, metric)
            spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
            cells.append(mean_format.format(np.mean(found)) + spread)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Runs all variants, prints the tables and keeps the figures in `WORKDIR/ablation.json`."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.ablation", description=__doc__)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="folder for a run of each variant")
    parser.add_argument("--train", nargs="+", metavar="MUSIC", help="default: synthetic music")
    parser.add_argument("--held-out", nargs="+", metavar="MUSIC", help="default: a part of --train")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="variants by their beginnings")
    parser.add_argument("--set", nargs="*", default=(), metavar="KEY=VALUE", help="changes of the recipe")
    asked = parser.parse_args(words)
    use_one_heap()
    keep_freed_memory()
    enable_compilation_cache()
    music = {"train": asked.train, "validation": asked.held_out}
    places = [f"data.{key}={json.dumps(places)}" for key, places in music.items() if places]
    config = recipe([*places, *asked.set])
    results = ablation(config, asked.workdir, asked.seeds, asked.only)
    write_figures(asked.workdir / "ablation.json", results)
    sys.stdout.write(table(results, of_transform(config)))


if __name__ == "__main__":
    run_program(main)
