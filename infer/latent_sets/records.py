"""The record beside each shard: what it holds, where, and the sums for the statistics."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.borders import explaining, read_json, reason, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets.shards import SUFFIXES
from earvae_jax.infer.latent_sets.statistics import Statistics
from earvae_jax.infer.latents import NUMBER_FORMATS, number_format
from earvae_jax.system.atomic import replacing

FORMAT_VERSION = 1
INDEX, STATISTICS = "index.jsonl", "latent_statistics.json"
_NAME = "latents-"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all shards of a folder have in common.

    Attributes:
      kind: "webdataset" or "arrayrecord".
      model: fingerprint of the model that encoded them.
      model_sample_rate: its rate in Hz.
      downsampling_ratio: samples for each latent.
      latent_dim: D.
      latent_dtype: number format of the arrays.
      holds: "mean" or "mean+std".
      compute_dtype: how the model computed.
    """

    kind: str
    model: str
    model_sample_rate: int
    downsampling_ratio: int
    latent_dim: int
    latent_dtype: str
    holds: str
    compute_dtype: str

    def __post_init__(self):
        counts = (self.model_sample_rate, self.downsampling_ratio, self.latent_dim)
        known = self.kind in SUFFIXES and self.latent_dtype in NUMBER_FORMATS
        whole = all(type(count) is int and count > 0 for count in counts)
        named = all(isinstance(text, str) for text in (self.model, self.compute_dtype))
        if not (named and known and whole and self.holds in ("mean", "mean+std")):
            raise ValueError("unknown settings")

    @property
    def words(self) -> str:
        """In words, for a message."""
        what = "means and deviations" if self.holds == "mean+std" else "means"
        return f"model {self.model[:12]} ({self.compute_dtype}, {self.latent_dtype} {what}, {self.kind})"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One item of a shard.

    Attributes:
      file: name of the audio file, relative to the folder that was given.
      offset: in a tar file, the byte at which the numbers of the mean begin; else the number of the record.
      std_offset: the same for the std in a tar file; None without a std, and for records.
      latents: N.
      sample_rate, samples, channels: of the audio.
    """

    file: str
    offset: int
    std_offset: int | None
    latents: int
    sample_rate: int
    samples: int
    channels: int

    def __post_init__(self):
        counts = (self.latents, self.sample_rate, self.samples, self.channels)
        places = (self.offset, 0 if self.std_offset is None else self.std_offset)
        whole = all(type(number) is int and number >= 0 for number in (*counts, *places))
        if not whole or not all(counts) or not isinstance(self.file, str):
            raise ValueError("an item is not described as it should be")

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.samples / self.sample_rate


@dataclasses.dataclass(frozen=True)
class Record:
    """All about one shard."""

    settings: Settings
    model_name: str
    entries: Sequence[Entry]
    statistics: Statistics


def shard_name(process: int, number: int, kind: str) -> str:
    """The name of the shard that a process writes as its `number`-th."""
    return f"{_NAME}{process:03}-{number:05}{SUFFIXES[kind]}"


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder, by name."""
    return sorted(path for path in folder.glob(f"{_NAME}*-*") if is_shard(path))


def is_shard(path: Path) -> bool:
    """Whether a path has the name of a shard."""
    return path.suffix in SUFFIXES.values() and path.name.startswith(_NAME) and "-" in path.name[len(_NAME) :]


def unclaimed_records(folder: Path) -> list[Path]:
    """Records whose shard does not exist: a kill came before the shard got its name."""
    named = {path.stem for path in shards_in(folder)}
    return sorted(path for path in folder.glob(f"{_NAME}*-*.json") if path.stem not in named)


def place_of(path: Path) -> tuple[int, int]:
    """Process and number in the name of a shard or its record; (-1, -1) for other names."""
    process, _, number = path.stem.removeprefix(_NAME).partition("-")
    return (int(process), int(number)) if process.isdecimal() and number.isdecimal() else (-1, -1)


def write_record(shard: Path, record: Record) -> None:
    """Writes the record of a shard, whose own name comes after it."""
    written = {
        "format_version": FORMAT_VERSION,
        "settings": dataclasses.asdict(record.settings),
        "model_name": record.model_name,
        "items": [dataclasses.asdict(entry) for entry in record.entries],
        "statistics": record.statistics.to_dict(),
    }
    with replacing(shard.with_suffix(".json"), durable=True) as temporary:
        temporary.write_text(json.dumps(written))


def read_record(shard: Path) -> Record:
    """Reads the record of a shard.

    Raises:
      UserError: it is missing, damaged or of another version.
    """
    path = shard.with_suffix(".json")
    if not path.exists():
        raise UserError(
            f"{shown(shard)}: {path.name}, which says what it holds, is missing: restore it, or remove both"
        )
    found = read_json(path, "record of a shard")
    with explaining(path, "a damaged record of a shard"):
        version = found["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(f"{shown(path)}: format {version}; this version reads format {FORMAT_VERSION}")
        settings = Settings(**found["settings"])
        entries = [Entry(**item) for item in found["items"]]
        statistics = Statistics.from_dict(found["statistics"])
        counted = statistics.count == sum(entry.latents for entry in entries)
        if len(statistics.mean) != settings.latent_dim or not counted or not entries:
            raise ValueError("its parts do not fit together")
        _check_size(shard, settings, entries)
        return Record(settings, str(found["model_name"]), entries, statistics)


def _check_size(shard: Path, settings: Settings, entries: Sequence[Entry]) -> None:
    """Raises a `UserError` if a shard is smaller than what it should hold."""
    row = settings.latent_dim * number_format(settings.latent_dtype).itemsize
    if settings.kind == "webdataset":
        ends = (max(entry.offset, entry.std_offset or 0) + entry.latents * row for entry in entries)
        needed = max(ends)
    else:
        arrays = 2 if settings.holds == "mean+std" else 1
        needed = sum(entry.latents for entry in entries) * row * arrays
    if shard.stat().st_size < needed:
        raise UserError(
            f"{shown(shard)}: cut short: {needed} bytes and more are expected; remove it and "
            f"{shard.with_suffix('.json').name}, and encode again"
        )


def read_records(folder: Path) -> dict[Path, Record]:
    """The records of all shards of a folder; those of one run and its repetitions, so of one kind.

    Raises:
      UserError: a record is missing or damaged, or two shards were made with different settings.
    """
    records = {shard: read_record(shard) for shard in shards_in(folder)}
    first = next(iter(records.items()), None)
    for shard, record in records.items():
        if first is not None and record.settings != first[1].settings:
            raise UserError(
                f"{shown(shard)}: made with {record.settings.words}, but {first[0].name} beside it with "
                f"{first[1].settings.words}: keep them in two folders"
            )
    return records


def distinct(records: dict[Path, Record]) -> Iterator[tuple[Path, Record, Entry]]:
    """All items with their shards; a file that is in two shards is given once, and the log names it."""
    seen: dict[str, Path] = {}
    for shard, record in records.items():
        for entry in record.entries:
            if entry.file in seen:
                logging.warning("%s: %s is in %s too", shown(shard), shown(entry.file), seen[entry.file].name)
            else:
                seen[entry.file] = shard
                yield shard, record, entry


def merged_statistics(records: dict[Path, Record]) -> Statistics:
    """The statistics of all shards, merged in the order of their names; there is at least one."""
    first, *others = (records[shard].statistics for shard in sorted(records))
    for statistics in others:
        first = first.merged(statistics)
    return first


def write_summaries(folder: Path) -> None:
    """Writes the index and the statistics of all shards that are there.

    Several processes may do this at once. Each looks again after it has written, so the last word is that of
    one which has seen every shard.

    Raises:
      UserError: they cannot be read or written.
    """
    written: list[Path] | None = None
    while (shards := shards_in(folder)) != written:
        written = shards
        if not shards:
            return
        records = read_records(folder)
        try:
            _write_index(folder / INDEX, records)
            with replacing(folder / STATISTICS) as temporary:
                temporary.write_text(json.dumps(summary(records)) + "\n")
        except OSError as error:
            raise UserError(f"{shown(folder)}: the index cannot be written: {reason(error)}") from None


def summary(records: dict[Path, Record]) -> dict[str, Any]:
    """What `latent_statistics.json` holds: the settings, the sizes and the statistics."""
    first = next(iter(records.values()))
    entries = [entry for record in records.values() for entry in record.entries]
    return {
        **dataclasses.asdict(first.settings),
        "model_name": first.model_name,
        "latent_rate_hz": first.settings.model_sample_rate / first.settings.downsampling_ratio,
        "shards": len(records),
        "files": len(entries),
        "seconds": sum(entry.seconds for entry in entries),
        **merged_statistics(records).described(),
    }


def _write_index(path: Path, records: dict[Path, Record]) -> None:
    with replacing(path) as temporary, temporary.open("w") as file:
        for shard, record, entry in distinct(records):
            settings = record.settings
            line = {
                "file": entry.file,
                "shard": shard.name,
                **{key: value for key, value in dataclasses.asdict(entry).items() if key != "file"},
                "seconds": entry.seconds,
                "dim": settings.latent_dim,
                "dtype": settings.latent_dtype,
                "latent_rate_hz": settings.model_sample_rate / settings.downsampling_ratio,
                "model": settings.model,
            }
            file.write(json.dumps(line) + "\n")
