"""Which packages are there, without importing any: a part that imports a missing one could not say so."""

import importlib.util
from collections.abc import Mapping

# Modules that the parts use and a machine may lack, by the project that `pip install` calls them by.
NEEDED = {
    "av": "av",
    "dacite": "dacite",
    "flax": "flax",
    "jaxtyping": "jaxtyping",
    "optax": "optax",
    "orbax.checkpoint": "orbax-checkpoint",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tensorstore": "tensorstore",
    "tqdm": "tqdm",
}
OPTIONAL = ("torch", "triton", "diffusers")


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    """What to call `pip install` with."""
    return [project for module, project in needed.items() if not is_there(module)]


def is_there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
