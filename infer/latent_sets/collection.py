"""`LatentSet`: the latents of a whole collection, read in pieces from shards or from single files."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from earvae_jax.borders import explaining, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets import records, shards
from earvae_jax.infer.latent_sets.records import Entry, Record
from earvae_jax.infer.latent_sets.statistics import Statistics
from earvae_jax.infer.latents import Header, Latents, number_format, read_header, read_latents
from earvae_jax.system.file_search import find_files

_SHARDS_OPEN = 64  # ArrayRecord files that are kept open
_SINGLE = "files"  # the kind of a folder of single files

Place = str | os.PathLike[str]
Piece = tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N D"] | None]  # mean and std


class _Source(Protocol):
    """Where the latents of an item lie."""

    def read(self, start: int, stop: int) -> Piece: ...


@dataclasses.dataclass(frozen=True)
class Item:
    """The latents of one piece of audio, not read yet.

    Attributes:
      file: name of the audio file, relative to the folder that was encoded.
      latents: N.
      sample_rate, samples, channels: of the audio.
      source: reads them.
    """

    file: str
    latents: int
    sample_rate: int
    samples: int
    channels: int
    source: _Source

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.samples / self.sample_rate


@dataclasses.dataclass(frozen=True)
class LatentSet:
    """A collection of latents of one model; `open_latents` makes it.

    Attributes:
      items: in the order of the shards, or of the names of single files.
      kind: "webdataset", "arrayrecord" or "files".
      dim: D.
      latent_rate: latents in a second; None for single files that do not say it.
      model, model_name: fingerprint and name of the model.
      has_std: whether every item has a std, so that samples can be drawn.
    """

    items: Sequence[Item]
    kind: str
    dim: int
    latent_rate: float | None
    model: str
    model_name: str
    has_std: bool
    _records: Sequence[dict[Path, Record]] = ()

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int, start: int = 0, stop: int | None = None) -> Piece:
        """Mean and std [stop − start, D] of an item in float32; the std is None if there is none.

        Raises:
          UserError: the file is missing, damaged or cut short.
        """
        item = self.items[index]
        return item.source.read(start, item.latents if stop is None else min(stop, item.latents))

    def latents(self, index: int) -> Latents:
        """A whole item, as a `Codec` decodes it."""
        item = self.items[index]
        mean, std = self.read(index)
        audio = (item.sample_rate, item.samples, item.channels)
        return Latents(mean, std, *audio, self.model, item.file, self.model_name)

    @property
    def shards(self) -> int:
        """How many shards hold it; 0 for single files."""
        return sum(map(len, self._records))

    def statistics(self) -> Statistics:
        """The statistics of all latents: from the sums of the shards, or by reading single files once."""
        if self._records:
            parts = [records.merged_statistics(each) for each in self._records]
        else:
            parts = [Statistics.of(*self.read(index)) for index in range(len(self))]
        return functools.reduce(Statistics.merged, parts)


def holds_latents(place: Place) -> bool:
    """Whether a path is a latent file, a shard, a folder of shards, or one with latent files inside."""
    path = Path(place)
    if path.is_file():
        return path.suffix == ".npz" or records.is_shard(path)
    return path.is_dir() and (bool(records.shards_in(path)) or any(path.rglob("*.npz")))


def open_latents(places: Place | Sequence[Place]) -> LatentSet:
    """Opens shards, folders of shards, `.npz` files and folders of them, all of one model.

    Raises:
      UserError: a place does not exist, holds no latents, or those of another model; something is damaged.
    """
    given = [Path(place) for place in ([places] if isinstance(places, (str, os.PathLike)) else places)]
    parts = [_open(place) for place in given]
    if not parts:
        raise UserError("no folder of latents is given")
    first, *others = parts
    for place, part in zip(given[1:], others, strict=True):
        if (part.model, part.dim) != (first.model, first.dim):
            raise UserError(
                f"{shown(place)}: latents of another model ({part.model_name or part.model[:12]}) than those "
                f"of {shown(given[0])} ({first.model_name or first.model[:12]})"
            )
    if not others:
        return first
    sums = [each for part in parts for each in part._records]
    return dataclasses.replace(
        first,
        items=[item for part in parts for item in part.items],
        kind=first.kind if len({part.kind for part in parts}) == 1 else "mixed",
        latent_rate=next((part.latent_rate for part in parts if part.latent_rate), None),
        has_std=all(part.has_std for part in parts),
        _records=sums if all(part._records for part in parts) else (),
    )


def _open(place: Path) -> LatentSet:
    if place.is_dir() and (found := records.read_records(place)):
        if any(place.rglob("*.npz")):
            raise UserError(f"{shown(place)}: holds shards and single files; give them as two folders")
        return of_shards(found)
    if records.is_shard(place) and place.is_file():
        return of_shards({place: records.read_record(place)})
    found_files = find_files([place], {".npz"}, "latents")
    return of_files([(path, name, read_header(path)) for path, name in found_files])


def of_shards(found: dict[Path, Record]) -> LatentSet:
    """The items of shards that were made with the same settings; there is at least one shard."""
    record = next(iter(found.values()))
    settings = record.settings
    items = [
        Item(
            entry.file,
            entry.latents,
            entry.sample_rate,
            entry.samples,
            entry.channels,
            _InShard(shard, settings.latent_dim, settings.latent_dtype, settings.holds == "mean+std", entry),
        )
        for shard, _, entry in records.distinct(found)
    ]
    return LatentSet(
        items,
        settings.kind,
        settings.latent_dim,
        settings.model_sample_rate / settings.downsampling_ratio,
        settings.model,
        record.model_name,
        settings.holds == "mean+std",
        [found],
    )


def of_files(headers: Sequence[tuple[Path, Path, Header]]) -> LatentSet:
    """The items of single files, each with its relative name; there is at least one.

    Raises:
      UserError: they are of several models.
    """
    first_path, _, first = headers[0]
    for path, _, header in headers:
        if (header.model, header.dim) != (first.model, first.dim):
            raise UserError(
                f"{shown(path)}: latents of another model ({header.model_name or header.model[:12]}) than "
                f"{shown(first_path)} ({first.model_name or first.model[:12]})"
            )
    items = [
        Item(
            header.name or str(name),
            header.latents,
            header.sample_rate,
            header.samples,
            header.channels,
            _OfFile(path, header.has_std),
        )
        for path, name, header in headers
    ]
    has_std = all(header.has_std for _, _, header in headers)
    return LatentSet(items, _SINGLE, first.dim, first.latent_rate, first.model, first.model_name, has_std)


@dataclasses.dataclass(frozen=True)
class _OfFile:
    path: Path
    has_std: bool

    def read(self, start: int, stop: int) -> Piece:
        latents = read_latents(self.path)
        return latents.mean[start:stop], None if latents.std is None else latents.std[start:stop]


@dataclasses.dataclass(frozen=True)
class _InShard:
    shard: Path
    dim: int
    dtype: str
    has_std: bool
    entry: Entry

    def read(self, start: int, stop: int) -> Piece:
        with explaining(self.shard, f"{shown(self.entry.file)} cannot be read from it"):
            if self.shard.suffix == shards.SUFFIXES["arrayrecord"]:
                data = _record(str(self.shard), self.entry.offset)
                begins = shards.places(data)
                mean = self._from_bytes(data, begins["mean"], start, stop)
                std = self._from_bytes(data, begins["std"], start, stop) if self.has_std else None
            else:
                with self.shard.open("rb") as file:
                    mean = self._from_file(file, self.entry.offset, start, stop)
                    std = None
                    if self.entry.std_offset is not None:
                        std = self._from_file(file, self.entry.std_offset, start, stop)
        return mean, std

    def _from_file(self, file: Any, offset: int, start: int, stop: int) -> np.ndarray:
        row = self.dim * number_format(self.dtype).itemsize
        file.seek(offset + start * row)
        return self._values(file.read((stop - start) * row), stop - start)

    def _from_bytes(self, data: bytes, offset: int, start: int, stop: int) -> np.ndarray:
        row = self.dim * number_format(self.dtype).itemsize
        return self._values(data[offset + start * row : offset + stop * row], stop - start)

    def _values(self, data: bytes, count: int) -> np.ndarray:
        values = np.frombuffer(data, number_format(self.dtype)).reshape(count, self.dim).astype(np.float32)
        if not np.isfinite(values).all():
            raise UserError(f"{shown(self.shard)}: {shown(self.entry.file)} holds NaN or infinite latents")
        return values


def _record(path: str, number: int) -> bytes:
    status = Path(path).stat()
    return bytes(_reader(path, os.getpid(), status.st_ino, status.st_mtime_ns).read([number])[0])


@functools.lru_cache(maxsize=_SHARDS_OPEN)
def _reader(path: str, process: int, *_identity: int) -> Any:
    """An open ArrayRecord file; a forked process opens its own, and a new file of that name is another."""
    return shards.array_record().ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")
