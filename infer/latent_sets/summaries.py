"""What a collection of latents is like: for people, and `latent_statistics.json` of single files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.borders import reason, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets.collection import LatentSet, of_files
from earvae_jax.infer.latent_sets.records import STATISTICS
from earvae_jax.infer.latents import Header, read_header
from earvae_jax.system.atomic import replacing
from earvae_jax.system.file_search import find_files

_STATE = "state_of_files"
_Files = list[tuple[Path, Path]]  # with their names in the folder


def described(latents: LatentSet) -> dict[str, Any]:
    """Sizes, settings and statistics."""
    return {
        "kind": latents.kind,
        "model": latents.model,
        "model_name": latents.model_name,
        "files": len(latents),
        "shards": latents.shards or None,
        "seconds": sum(item.seconds for item in latents.items),
        "latent_rate_hz": latents.latent_rate,
        "holds": "mean+std" if latents.has_std else "mean",
        "latent_dim": latents.dim,
        **latents.statistics().described(),
    }


def summary(latents: LatentSet) -> dict[str, Any]:
    """The same for people: without the covariance, which is a page of numbers, and with few digits."""
    told = described(latents)
    del told["covariance"]  # latent_statistics.json has it
    return {key: _for_people(value) for key, value in told.items()}


def write_statistics_of_files(folder: Path, model: str) -> None:
    """Writes `latent_statistics.json` of all single files of a model in a folder and below it.

    Where the file tells of just these files already, nothing is read. Several processes may end at once: one
    that finds other files after reading than before leaves the writing to whoever wrote those.

    Raises:
      UserError: a file cannot be read, or the statistics cannot be written.
    """
    files = _files(folder)
    state = _state(files)
    if not files or _told(folder / STATISTICS) == state:
        return
    headers = [(path, name, header) for path, name in files if (header := _header(path, model))]
    if len(headers) < len(files):
        logging.info(
            "%s: leaves out %d of %d files, which hold no latents of this model",
            shown(folder / STATISTICS),
            len(files) - len(headers),
            len(files),
        )
    if not headers:
        return
    told = {**described(of_files(headers)), _STATE: state}
    if _state(_files(folder)) != state:
        return
    try:
        with replacing(folder / STATISTICS) as temporary:
            temporary.write_text(json.dumps(told) + "\n")
    except OSError as error:
        raise UserError(f"{shown(folder / STATISTICS)}: cannot be written: {reason(error)}") from None


def _files(folder: Path) -> _Files:
    try:
        return find_files([folder], {".npz"}, "latents")
    except UserError:  # there are none
        return []


def _header(path: Path, model: str) -> Header | None:
    try:
        header = read_header(path)
    except UserError:
        return None
    return header if header.model == model else None


def _state(files: _Files) -> str:
    """Differs for every state of the files."""
    digest = hashlib.sha256()
    for path, name in files:
        try:
            status = path.stat()
            told = [str(name), status.st_size, status.st_mtime_ns]
        except OSError:  # gone since, or a broken link
            told = [str(name)]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _told(path: Path) -> str | None:
    """Of which state of the files the statistics that are there tell."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):  # none yet, or damaged: it is written anew
        return None
    return told.get(_STATE) if isinstance(told, dict) else None


def _for_people(value: Any) -> Any:
    return (
        [float(f"{each:.6g}") if isinstance(each, float) else each for each in value]
        if isinstance(value, list)
        else value
    )
