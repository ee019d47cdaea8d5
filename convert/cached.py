"""Weights of PyTorch used in place of a checkpoint: converted once, into the user's cache."""

import hashlib
import json
from pathlib import Path

from absl import logging

from earvae_jax.borders import explaining, shown
from earvae_jax.convert import from_torch, sources
from earvae_jax.errors import UserError
from earvae_jax.system.addresses import address
from earvae_jax.system.user_cache import cache_folder

_VERSION = 1  # of what a conversion makes of a file; another one does not find the files of before


def checkpoint_of(source: str | Path) -> Path:
    """The checkpoint that a source of weights converts to; converts if it has not been done before.

    A source is what `convert from-torch` takes. Another size, date or JSON of it is another source.

    Raises:
      UserError: the source does not convert without options, or the cache cannot be written.
    """
    name = address(source) or source
    found = sources.locate(source)
    checkpoint = cache_folder() / "models" / f"{found.weights.stem}-{_key(found)}.safetensors"
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


def _key(found: sources.Source) -> str:
    """Differs for every state of the files that a conversion reads."""
    with explaining(found.weights, "cannot be read"):
        path = found.weights.resolve()
        state = path.stat()
        configs = sorted(path.parent.glob("*.json")) if not found.is_remote else []
        described = [(config.name, config.stat().st_size, config.stat().st_mtime_ns) for config in configs]
    text = json.dumps([_VERSION, str(path), state.st_size, state.st_mtime_ns, described])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
