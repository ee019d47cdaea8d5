"""What the parts share: their flags, their model, and the file that they write."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from earvae_jax import checkpoints
from earvae_jax.command import run_program
from earvae_jax.model.antialias import kaiser_sinc_filter
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.positions import RotaryEmbedding
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build, expected_arrays
from earvae_jax.system.atomic import replacing
from tools.card.sizes import CONFIG, model_values


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a part was called."""

    output: Path  # the JSON file to write
    work: Path  # folder for what the parts make and share
    small: bool

    @property
    def config(self) -> ModelConfig:
        """The model's: the published one, or the same with narrow levels."""
        return ModelConfig.from_dict(model_values(CONFIG, small=self.small))

    def model(self) -> EarVAE:
        """A random model of this config; the same at every call."""
        return random_model(self.config)

    def checkpoint(self) -> Path:
        """The file of that model, written at the first call of any part."""
        path = self.work / "model.safetensors"
        if not path.exists():
            checkpoints.save(path, self.model(), provenance={"name": "random"})
        return path


def run(measure: Callable[[Asked], Mapping[str, Any]], description: str | None) -> NoReturn:
    """Reads the flags, measures, and writes the result; a result with "passed" false still counts as done."""

    def program() -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--output", required=True, type=Path, metavar="JSON")
        parser.add_argument("--work", required=True, type=Path, metavar="DIR")
        parser.add_argument("--small", action="store_true")
        asked = Asked(**vars(parser.parse_args()))
        result = measure(asked)
        with replacing(asked.output) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    run_program(program)


def random_model(config: ModelConfig, seed: int = 0) -> EarVAE:
    """A model in which nothing is zero or one, as much of a new one is: each weight shows in the output."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, array in sorted(expected_arrays(config).items()):
        kind, shape = name.rsplit(".", 1)[-1], array.shape
        if kind.endswith("_filter"):
            value = kaiser_sinc_filter(0.25, 0.3, 12)
        elif kind == "inv_freq":
            assert config.transformer is not None
            value = np.asarray(RotaryEmbedding(config.transformer.rotary_dims).inv_freq[...])
        elif kind in ("gain", "gamma"):
            value = random.uniform(0.4, 0.8, shape)
        elif kind == "weight":
            value = random.uniform(-1, 1, shape) / np.sqrt(shape[0])
        elif kind == "direction":
            value = random.standard_normal(shape, np.float32)
        else:  # biases, α and β
            value = random.uniform(-0.3, 0.3, shape)
        arrays[name] = np.asarray(value, np.float32)
    return build(config, arrays)


def distances(values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The largest difference relative to the peak, and that of all values together (‖Δ‖/‖truth‖)."""
    length = min(len(values), len(truth))  # an odd stride decodes a few samples less
    difference = np.asarray(values[:length], np.float64) - truth[:length]
    return {
        "largest": float(np.abs(difference).max() / np.abs(truth).max()),
        "relative": float(np.linalg.norm(difference) / np.linalg.norm(truth[:length])),
    }
