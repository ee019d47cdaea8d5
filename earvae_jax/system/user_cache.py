"""The folder where this project keeps what can be made again."""

import os
from pathlib import Path

VARIABLE = "EARVAE_CACHE_DIR"
OFF = "off"


def cache_folder() -> Path:
    """`$EARVAE_CACHE_DIR`, unless that is "off", or the project's folder in the user's cache."""
    given = os.environ.get(VARIABLE, "")
    if given and given != OFF:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earvae-jax"
