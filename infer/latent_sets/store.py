"""Writes latents into shards so that each is there once, whatever was killed and however many processes ran.

A shard is written under a temporary name. When it is whole, its record gets its name, and then the shard
itself: with that, and not before, its items are done. A record without a shard is a kill between the two, and
counts for nothing. Each process writes shards of its own names, and the files are dealt out by their place in
the list of all, done or not, so no two processes of a run have the same one.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from earvae_jax.borders import reason, shown
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets import records, shards
from earvae_jax.infer.latent_sets.locks import ProcessLock
from earvae_jax.infer.latent_sets.records import Entry, Record, Settings
from earvae_jax.infer.latent_sets.statistics import Statistics
from earvae_jax.infer.latents import Latents, description, narrowed
from earvae_jax.system.atomic import remove_abandoned, replacing

_MOST_ITEMS = 1 << 15  # of a shard, so that its record stays a file of some megabytes


class ShardStore:
    """The shards that one process writes into a folder; a context manager, which closes the last one.

    Args:
      folder: exists.
      settings: those of all shards of the folder.
      model_name: the model's name, for people to read.
      size: bytes at which a shard is closed; only an item larger than this makes a larger one.
      process, processes: which of how many this is.
      committed: is told the names of items and their shard once they are on the disk.
      lost: is told the names of items whose shard could not be written, and why.

    Attributes:
      done: names of the items that are in shards.

    Raises:
      UserError: the folder holds latents of other settings, or another run is writing into it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        model_name: str = "",
        size: float,
        process: int = 0,
        processes: int = 1,
        committed: Callable[[list[str], Path], None] = lambda names, shard: None,
        lost: Callable[[list[str], UserError], None] = lambda names, error: None,
    ):
        shards.check_installed(settings.kind)
        self._folder, self._settings, self._model_name, self._size = folder, settings, model_name, size
        self._process, self._committed, self._lost = process, committed, lost
        self._open: _OpenShard | None = None
        self._lock = ProcessLock(folder, process, processes)
        try:
            found = records.read_records(folder)
            for shard, record in found.items():
                if record.settings != settings:
                    raise UserError(
                        f"{shown(shard)}: was made with {record.settings.words}; this run uses "
                        f"{settings.words}: take another --output-dir"
                    )
            if any(folder.rglob("*.npz")):
                raise UserError(f"{shown(folder)}: holds latents as single files: take another --output-dir")
            remove_abandoned(folder)
            for path in records.unclaimed_records(folder):
                owner = records.place_of(path)[0]
                if owner == process or (process == 0 and owner >= processes):  # others may be writing theirs
                    path.unlink(missing_ok=True)
        except BaseException:
            self._lock.release()
            raise
        self.done = {entry.file for record in found.values() for entry in record.entries}
        own = (number for owner, number in map(records.place_of, found) if owner == process)
        self._next = 1 + max(own, default=-1)

    def add(self, name: str, latents: Latents) -> None:
        """Appends one item; it is done when `committed` names it.

        Raises:
          UserError: the number format cannot hold it, or the shard cannot be written; then `lost` has been
            told the others of the shard.
        """
        arrays = narrowed(latents, self._settings.latent_dtype, shown(name))
        statistics = Statistics.of(arrays["mean"], arrays.get("std", latents.std))
        if self._settings.holds == "mean":
            arrays.pop("std", None)
        incoming = sum(array.nbytes for array in arrays.values())
        if self._open is not None and self._open.size + incoming > self._size:
            self.commit()
        try:
            if self._open is None:
                path = self._folder / records.shard_name(self._process, self._next, self._settings.kind)
                self._open = _OpenShard(path, self._settings)
            self._open.add(name, latents, arrays, statistics)
        except Exception as error:  # noqa: BLE001 - ArrayRecord raises errors of any type
            raise self._given_up(error) from None
        if self._open.size >= self._size or len(self._open.entries) >= _MOST_ITEMS:
            self.commit(besides=name)

    def commit(self, besides: str | None = None) -> None:
        """Gives the open shard its name, if there is one.

        Raises:
          UserError: that failed, and `besides` is one of its items; `lost` is told the others.
        """
        if self._open is None or self._open.broken:
            return
        shard, names = self._open, [entry.file for entry in self._open.entries]
        try:
            shard.finish(self._model_name)
        except Exception as error:  # noqa: BLE001 - ArrayRecord raises errors of any type
            explained = self._given_up(error, besides)
            if besides is not None:
                raise explained from None
            return
        self._open = None
        self._next += 1
        self.done.update(names)
        self._committed(names, shard.path)

    def __enter__(self) -> "ShardStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the last shard; after Ctrl-C too, unless that came in the middle of writing to it."""
        try:
            self.commit()
        finally:
            if self._open is not None:
                self._open.abandon()
            self._lock.release()

    def _given_up(self, error: Exception, besides: str | None = None) -> UserError:
        """Abandons the open shard; says so of all its items but one that the caller speaks of."""
        explained = UserError(f"its shard cannot be written: {reason(error)}")
        if self._open is not None:
            self._open.abandon()
            names = [entry.file for entry in self._open.entries if entry.file != besides]
            self._open = None
            if names:
                self._lost(names, explained)
        return explained


class _OpenShard:
    """A shard under its temporary name."""

    def __init__(self, path: Path, settings: Settings):
        self.path, self.settings = path, settings
        self.entries: list[Entry] = []
        self.broken = False  # an interrupted write; what was appended last may be cut
        self._statistics: Statistics | None = None
        self._replacing = contextlib.ExitStack()
        temporary = self._replacing.enter_context(replacing(path, durable=True))
        self._shard = shards.open_shard(settings.kind, temporary)

    @property
    def size(self) -> int:
        return self._shard.size

    def add(self, name: str, latents: Latents, arrays: shards.Arrays, statistics: Statistics) -> None:
        self.broken = True
        described = {
            "file": name,
            "seconds": latents.samples / latents.sample_rate,
            "latents": len(latents.mean),
            **description(latents, self.settings.latent_dtype),
            **dataclasses.asdict(self.settings),
        }
        # A name of letters and digits alone: webdataset ends a key at its first dot.
        key = hashlib.sha256(json.dumps(name).encode()).hexdigest()[:20]
        offset, std_offset = self._shard.add(key, arrays, described)
        self.entries.append(
            Entry(
                name,
                offset,
                std_offset,
                len(latents.mean),
                latents.sample_rate,
                latents.samples,
                latents.channels,
            )
        )
        self._statistics = statistics if self._statistics is None else self._statistics.merged(statistics)
        self.broken = False

    def finish(self, model_name: str) -> None:
        """The shard, its record, and then the shard's name."""
        assert self._statistics is not None  # a shard is opened for an item
        self.broken = True
        self._shard.finish()
        records.write_record(self.path, Record(self.settings, model_name, self.entries, self._statistics))
        self._replacing.close()
        self.broken = False

    def abandon(self) -> None:
        """Removes the temporary file; a record that is there already counts for nothing."""
        with contextlib.suppress(OSError):  # a full disk can refuse what is still buffered
            self._shard.abandon()
        given_up = _GivenUpError()
        with contextlib.suppress(_GivenUpError):
            if not self._replacing.__exit__(_GivenUpError, given_up, None):
                raise given_up


class _GivenUpError(Exception):
    """Ends `replacing` without a rename."""
