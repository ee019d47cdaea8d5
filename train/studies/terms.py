"""Measures what each term of the objective does: `python -m earvae_jax.train.studies.terms WORKDIR`.

It trains from one start by the demo's recipe at a constant rate, with the whole objective and with each term
alone. After some steps it measures each model on the same held-out crops: the five metrics, and the error
against the signal in bands of mid and side. `--train` and `--held-out` name the music. After an interruption
the same command continues.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.signal.metrics import NAMES as METRICS
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.system.heap import keep_freed_memory, use_one_heap
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.config.objective import TERMS
from earvae_jax.train.data.batches import validation_audio
from earvae_jax.train.run.loop import train_to_the_end
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.studies.bands import EDGES, band_errors
from earvae_jax.train.studies.trained import TRANSFORM, demo_recipe, reconstructions, write_figures
from earvae_jax.train.watch.validation import by_transform, mean_metrics

# At a constant rate the weights are noisy: without a long average, a model of step 2000 had more error below
# 200 Hz than one of step 500, by 2 dB in mid and 4 in side.
BUDGET = (
    "optimizer.cooldown_steps=0",
    "ema_decay=0.998",
    "data.validation_items=24",
    "log_every=100",
    "validate_every=1000",
    "checkpoint_every=250",
)


def recipe(changes: Sequence[str] = ()) -> TrainConfig:
    """The demo's recipe at a constant rate, with `changes`."""
    return demo_recipe((*BUDGET, *changes))


def variants(config: TrainConfig) -> dict[str, TrainConfig]:
    """The whole objective, and each term alone with its own weight, or 1 if that is 0."""
    found = {"whole objective": config}
    for term in TERMS:
        alone = dict.fromkeys(TERMS, 0.0) | {term: getattr(config.objective, term) or 1.0}
        objective = dataclasses.replace(config.objective, **alone)
        found[f"{term} alone"] = dataclasses.replace(config, objective=objective)
    return found


def study(config: TrainConfig, steps: Sequence[int], workdir: Path, names: Sequence[str]) -> dict[str, dict]:
    """Measures each variant after each number of steps; returns and keeps the results in `terms.json`.

    The first is a fixed cosine transform of the model's rate.
    """
    rate = config.sample_rate
    crops = validation_audio(config.data, sample_rate=rate, seed=config.seed)
    made = by_transform(crops, config.model_config)
    results: dict[str, dict] = {
        TRANSFORM: {0: mean_metrics(crops, made, rate) | band_errors(crops, made, rate)}
    }
    for name, variant in variants(config).items():
        if names and not any(name.startswith(each) for each in names):
            continue
        folder = workdir / name.replace(" ", "_")
        for count in steps:
            kept = folder / f"measured_{count}.json"
            if not kept.exists():
                if count:
                    train_to_the_end(dataclasses.replace(variant, steps=count), folder)
                    model = checkpoints.load(folder / "model.safetensors")
                else:
                    trainer = Trainer(variant)
                    model = trainer.model(trainer.initial_state())
                made = reconstructions(model, crops)
                measured = mean_metrics(crops, made, rate) | band_errors(crops, made, rate)
                write_figures(kept, measured)
            results.setdefault(name, {})[count] = json.loads(kept.read_text(encoding="utf-8"))
            logging.info("%s, %d steps: %s", name, count, results[name][count])
    write_figures(workdir / "terms.json", results)
    return results


def table(results: dict[str, dict]) -> str:
    """The results in Markdown, one row for each variant and step."""
    bands = [f"{place} {low}–{high}" for place in ("mid", "side") for low, high in itertools.pairwise(EDGES)]
    columns = METRICS | {band: band for band in bands}
    lines = [
        "| objective | steps | " + " | ".join(columns.values()) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, by_step in results.items():
        for count, values in by_step.items():
            cells = [f"{values.get(column, np.nan):.3f}" for column in columns]
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Trains the variants asked for and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.terms", description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--train", nargs="+", required=True, metavar="MUSIC")
    parser.add_argument("--held-out", nargs="+", required=True, metavar="MUSIC")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 500, 2000, 6000], metavar="N")
    parser.add_argument(
        "--only", nargs="*", default=(), metavar="NAME", help="only variants whose names begin so"
    )
    parser.add_argument("--set", nargs="*", default=(), metavar="KEY=VALUE", help="changes to the recipe")
    asked = parser.parse_args(words)
    use_one_heap()
    keep_freed_memory()
    enable_compilation_cache()
    music = [f"data.train={json.dumps(asked.train)}", f"data.validation={json.dumps(asked.held_out)}"]
    results = study(recipe([*music, *asked.set]), asked.steps, asked.workdir, asked.only)
    sys.stdout.write(table(results))


if __name__ == "__main__":
    run_program(main)
