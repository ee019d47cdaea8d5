"""The latents that a command line names: single files, and the items of shards."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import logging

from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets import records
from earvae_jax.infer.latent_sets.collection import LatentSet, of_shards
from earvae_jax.infer.latent_sets.shards import SUFFIXES
from earvae_jax.infer.latents import Latents, read_latents
from earvae_jax.system.file_search import find_files


@dataclasses.dataclass(frozen=True)
class Found:
    """The latents of one piece of audio, not read yet.

    Attributes:
      source: their file; for an item of a shard the path that it would have if the shard were a folder.
      name: relative to what was given; of an item of a shard, that of its audio file.
      read: reads them, or raises a `UserError` that says why not.
    """

    source: Path
    name: Path
    read: Callable[[], Latents]


def find_latents(inputs: Sequence[str | Path], *, output_dir: Path | None = None) -> list[Found]:
    """Expands latent files, shards, and folders of both, as `find_files` does.

    A shard without a readable record is one `Found` that raises what is wrong with it. An item that several
    shards of a folder hold is given once.

    Raises:
      UserError: an input does not exist, or the inputs hold no latents at all.
    """
    files = find_files(
        inputs,
        {".npz", *SUFFIXES.values()},
        "latents",
        output_dir=output_dir,
        wanted=lambda path: path.suffix.lower() == ".npz" or records.is_shard(path),
    )
    found: list[Found] = []
    seen: dict[tuple[Path, str], Path] = {}
    for path, name in files:
        if path.suffix not in SUFFIXES.values():
            found.append(Found(path, name, functools.partial(read_latents, path)))
            continue
        try:
            latents = of_shards({path: records.read_record(path)})
        except UserError as error:
            found.append(Found(path, name, functools.partial(_refuse, error)))
            continue
        for item in _items(path, name.parent, latents):
            first = seen.setdefault((path.parent, str(item.name)), path)
            if first == path:
                found.append(item)
            else:
                logging.warning("%s: is in %s too", shown(item.source), first.name)
    return found


def _items(shard: Path, folder: Path, latents: LatentSet) -> Iterator[Found]:
    for index, item in enumerate(latents.items):
        source = shard / (item.file.lstrip("/") or "?")
        if _stays_inside(item.file):
            yield Found(source, folder / item.file, functools.partial(_read, shard, source, latents, index))
        else:  # a record that others wrote must not name a place anywhere
            wrong = UserError(f"{shown(source)}: {item.file!r} is not a name inside a folder")
            yield Found(source, folder / f"{shard.name}.{index}", functools.partial(_refuse, wrong))


def _stays_inside(file: str) -> bool:
    path = Path(file)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\0" not in file


def _read(shard: Path, source: Path, latents: LatentSet, index: int) -> Latents:
    try:
        return latents.latents(index)
    except UserError as error:
        message = str(error).removeprefix(f"{shown(shard)}: ")
        raise UserError(f"{shown(source)}: {message}") from None


def _refuse(error: UserError) -> Latents:
    raise error
