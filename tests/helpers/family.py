"""The recordings of other projects' Oobleck models, converted from the files as they are published."""

import functools
from pathlib import Path

import pytest
from places import GOLDEN, SHARED_FAMILY

from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import build


def folder(name: str) -> Path:
    """The folder of a recording; skips the test where it is not at hand."""
    for place in (GOLDEN / "family", SHARED_FAMILY):
        if (place / name).is_dir():
            return place / name
    pytest.skip(f"the recording {name} is not at hand")


@functools.cache
def model(name: str) -> EarVAE:
    """The model of a recording, as `convert from-torch FOLDER` reads it."""
    from earvae_jax.convert import from_torch

    weights = from_torch.read(folder(name))
    return build(weights.config, weights.arrays)
