"""Files of many latents: plain tar files as webdataset reads them, and ArrayRecord files."""

import contextlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import safetensors.numpy

from earvae_jax.errors import require

SUFFIXES = {"webdataset": ".tar", "arrayrecord": ".arrayrecord"}
_HEADER = 512  # bytes before the content of a tar member with a short name

Arrays = Mapping[str, np.ndarray]  # mean and perhaps std, [N, D] each


class Shard(Protocol):
    """A shard that is being written under a temporary name.

    Attributes:
      size: bytes so far, about.
    """

    size: int

    def add(self, key: str, arrays: Arrays, described: Mapping[str, Any]) -> tuple[int, int | None]:
        """Appends one item; returns the offsets of its mean and its std, as `Entry` describes them."""

    def finish(self) -> None:
        """Writes what closes the file, and checks it where the format allows that."""

    def abandon(self) -> None:
        """Lets go of the file, which will be removed."""


def open_shard(kind: str, path: Path) -> Shard:
    """Begins a shard of that kind.

    Raises:
      UserError: the library of that kind is not installed.
    """
    return _TarShard(path) if kind == "webdataset" else _ArrayRecordShard(path)


def check_installed(kind: str) -> None:
    """Raises a `UserError` that names the extra if the library of that kind is not installed."""
    if kind == "arrayrecord":
        array_record()


def array_record() -> ModuleType:
    """The library of ArrayRecord files; raises a `UserError` that names the extra if it is not installed."""
    return require("array_record.python.array_record_module", extra="arrayrecord")


class _TarShard:
    """Members KEY.json, KEY.mean.npy and KEY.std.npy.

    Files of NumPy have no name for bfloat16: in that format the arrays are in KEY.safetensors.
    """

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self.size = 0

    def add(self, key: str, arrays: Arrays, described: Mapping[str, Any]) -> tuple[int, int | None]:
        self._append(f"{key}.json", json.dumps(described).encode())
        offsets = {}
        if arrays["mean"].dtype.kind == "f":
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                data = content.getvalue()
                offsets[name] = self._append(f"{key}.{name}.npy", data) + len(data) - array.nbytes
        else:
            data = safetensors.numpy.save(dict(arrays))
            begin = self._append(f"{key}.safetensors", data)
            offsets = {name: begin + place for name, place in places(data).items()}
        return offsets["mean"], offsets.get("std")

    def finish(self) -> None:
        self._tar.close()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _append(self, name: str, data: bytes) -> int:
        """Appends a member; returns where its content begins."""
        begin = self._tar.offset + _HEADER
        member = tarfile.TarInfo(name)  # without time and owner: the same latents make the same file
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self.size = self._tar.offset
        return begin


class _ArrayRecordShard:
    """Records that are safetensors with `mean` and perhaps `std`; `latents` in their metadata is JSON."""

    def __init__(self, path: Path):
        self._module = array_record()
        self._path = path
        # Compressing would cost more time than encoding, and latents hardly shrink.
        self._writer = self._module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        self._records = 0
        self.size = 0

    def add(self, key: str, arrays: Arrays, described: Mapping[str, Any]) -> tuple[int, int | None]:
        data = safetensors.numpy.save(dict(arrays), metadata={"latents": json.dumps(described)})
        self._writer.write(data)
        self.size += len(data)
        self._records += 1
        return self._records - 1, None

    def finish(self) -> None:
        self._writer.close()
        reader = self._module.ArrayRecordReader(str(self._path))
        try:
            if reader.num_records() != self._records:  # the writer says nothing about a full disk
                raise OSError(f"{reader.num_records()} of {self._records} records arrived")
        finally:
            reader.close()

    def abandon(self) -> None:
        with contextlib.suppress(Exception):  # the file is given up, whatever is wrong with it
            self._writer.close()


def places(data: bytes) -> dict[str, int]:
    """Where the numbers of each array begin in the bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return {name: 8 + length + at["data_offsets"][0] for name, at in header.items() if name != "__metadata__"}
