"""Weights of PyTorch used in place of a checkpoint: converted once, into the user's cache."""

import hashlib
import json
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax import checkpoints, known_models
from earvae_jax.borders import LARGEST_JSON, explaining, shown
from earvae_jax.convert import from_torch, sources
from earvae_jax.errors import UserError
from earvae_jax.known_models import KnownModel
from earvae_jax.system.addresses import address
from earvae_jax.system.user_cache import cache_folder

_VERSION = 2  # of what a conversion makes of a file; another one does not find the files of before


def checkpoint_of(source: str | Path) -> Path:
    """The checkpoint that a source of weights converts to; converts if it has not been done before.

    A source is what `convert from-torch` takes. A file is known by its content and that of the JSON beside
    it, wherever it lies. A known model is fetched once.

    Raises:
      UserError: the source does not convert without options, or the cache cannot be written.
    """
    known = known_models.by_name(source)
    if known is not None:
        return _of_known(known)
    name = address(source) or source
    found = sources.locate(source)
    if found.is_remote and checkpoints.is_checkpoint(found.weights):
        return found.weights  # as `earvae push` uploads them
    checkpoint = _place(found.weights.stem, _state(found))
    if checkpoint.is_file():
        return checkpoint
    try:
        from_torch.convert(source, checkpoint, overwrite=True)
    except UserError as error:
        raise UserError(
            f"{name}: not a checkpoint of this project, and it does not convert by itself ({error}): "
            f"run earvae convert from-torch {name} DIR"
        ) from None
    logging.info("%s: converted into %s", found.shown, shown(checkpoint))
    return checkpoint


def place_of(known: KnownModel) -> Path:
    """Where the checkpoint of a known model is, once it has been converted."""
    return _place(known.name, [known.address])


def _of_known(known: KnownModel) -> Path:
    """The checkpoint of a known model; one that is there is used without asking the Hub or its cache."""
    checkpoint = place_of(known)
    if not checkpoint.is_file():
        from_torch.convert(known.name, checkpoint, overwrite=True)
        logging.info("%s: converted into %s", known.name, shown(checkpoint))
    return checkpoint


def _place(name: str, state: list[Any]) -> Path:
    """A file in the cache that differs for every state of what is converted."""
    text = json.dumps([_VERSION, *state])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return cache_folder() / "models" / f"{name}-{digest}.safetensors"


def _state(found: sources.Source) -> list[Any]:
    """What a conversion reads: a digest of the weights, and names and digests of the JSON files beside them.

    What lies beside weights of the Hub may be on the Hub alone: there the address stands for it.
    """
    with explaining(found.weights, "cannot be read"):
        if found.is_remote:
            return [_digest(found.weights), found.shown]
        configs = sorted(found.weights.resolve().parent.glob("*.json"))
        return [_digest(found.weights), [(config.name, _digest_of_config(config)) for config in configs]]


def _digest_of_config(path: Path) -> str | None:
    """None where it is no file that a conversion could read."""
    try:
        return _digest(path) if path.is_file() and path.stat().st_size <= LARGEST_JSON else None
    except OSError:
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
