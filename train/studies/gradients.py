"""Measures each term's gradient at the model's output: `python -m earvae_jax.train.studies.gradients MUSIC…`.

The model reconstructs held-out crops, and each weighted term of the recipe's objective pulls at them. The
table has the root mean square of that pull in bands of mid and side, as a part of the pull of all terms
together: a row shows where a term works, a column which terms work in a band.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import signal

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.train.data.batches import validation_audio
from earvae_jax.train.step.step import Trainer
from earvae_jax.train.studies.terms import EDGES, recipe
from earvae_jax.train.studies.trained import reconstructions
from earvae_jax.train.watch.pulls import Pulls


def in_bands(audio: Float[np.ndarray, "I T 2"], sample_rate: int) -> dict[str, float]:
    """Root mean square in bands of mid and side, both divided by √2, so that their squares add up."""
    found = {}
    for place, sign in (("mid", 1), ("side", -1)):
        values = (audio[..., 0] + sign * audio[..., 1]) / np.sqrt(2)
        segment = min(2048, values.shape[-1])
        # Gradients are as small as 1e-7, below what float32 can square.
        frequencies, density = signal.welch(
            np.float64(values), fs=sample_rate, nperseg=segment, detrend=False
        )
        for low, high in itertools.pairwise(EDGES):
            inside = (frequencies >= low) & (frequencies < high)
            power = np.mean(density[..., inside].sum(axis=-1)) * sample_rate / segment
            found[f"{place} {low}–{high}"] = float(np.sqrt(power))
    return found


def table(gradients: dict[str, Float[np.ndarray, "I T 2"]], sample_rate: int) -> str:
    """As Markdown, a row for each term and one for their sum."""
    rows = {**gradients, "all together": np.sum(list(gradients.values()), axis=0)}
    whole = np.sqrt(np.mean(np.square(np.float64(rows["all together"]))))
    measured = {name: in_bands(values, sample_rate) for name, values in rows.items()}
    columns = list(measured["all together"])
    lines = ["| term | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, values in measured.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[key] / whole:.3f}" for key in columns) + " |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m earvae_jax.train.studies.gradients", description=__doc__)
    parser.add_argument("music", nargs="+", help="held-out music")
    parser.add_argument("--checkpoint", type=Path, help="of the model; default: the recipe's start")
    parser.add_argument("--items", type=int, default=16, help="crops; default: 16")
    parser.add_argument("--set", nargs="*", default=(), metavar="KEY=VALUE", help="changes of the recipe")
    asked = parser.parse_args(words)
    enable_compilation_cache()
    data = {"train": asked.music, "validation": asked.music, "validation_items": asked.items}
    config = recipe(asked.set)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    rate = config.sample_rate
    target = validation_audio(config.data, sample_rate=rate, seed=config.seed)
    trainer = Trainer(config)
    model = checkpoints.load(asked.checkpoint) if asked.checkpoint else trainer.model(trainer.initial_state())
    prediction = reconstructions(model, target)
    pulls = Pulls(trainer)(None, prediction, target, share=None)
    sys.stdout.write(table(pulls, rate))


if __name__ == "__main__":
    run_program(main)
