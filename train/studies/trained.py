"""What the studies of training share: the demo's recipe, reconstructions of crops, figures in a file."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from earvae_jax.model.vae import EarVAE
from earvae_jax.system.atomic import replacing
from earvae_jax.train.config import TrainConfig

TRANSFORM = "fixed cosine transform"  # of a model's rate, in tables


def demo_recipe(changes: Sequence[str]) -> TrainConfig:
    """The demo's recipe with changes as `earvae train --set` takes them; later ones count."""
    with resources.as_file(resources.files("earvae_jax.configs") / "train_demo.json") as path:
        return TrainConfig.from_json(path, changes)


def reconstructions(model: EarVAE, crops: Float[np.ndarray, "I T C"]) -> Float[np.ndarray, "I T C"]:
    """Each crop from its mean latents, one at a time to keep memory small."""
    reconstruct = jax.jit(lambda audio: model.decode(model.encode(audio).mean))
    return np.concatenate([np.asarray(reconstruct(crop[None])) for crop in crops])


def write_figures(path: Path, figures: Any) -> None:
    """Writes JSON whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
