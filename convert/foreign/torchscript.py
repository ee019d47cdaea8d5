"""Reads the tensors of a TorchScript archive without running its code.

Such an archive holds a pickle of the module tree, whose classes are `__torch__.…`, beside the code that
`torch.jit.load` would run. Here each object becomes a plain dictionary of its attributes, and the pickle may
name nothing but tensors and a few containers.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from earvae_jax.borders import explaining
from earvae_jax.errors import UserError

_STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


_REMEDY = "; at its source, save a plain state dict: torch.save(model.state_dict(), PATH)"


class _Object:
    """An object of the archive: its attributes, and nothing of its class."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def is_torchscript(path: Path) -> bool:
    """Whether a zip file is an archive of `torch.jit.save`; False for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors by the dotted names of their modules.

    Raises:
      UserError: the archive is damaged, needs its code to be run, or holds its weights as constants without
        names.
    """
    with explaining(path, "a damaged TorchScript archive"), zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl"))
        with archive.open(root.replace("constants.pkl", "data.pkl")) as file:
            content = _Unpickler(file, archive, root.removesuffix("constants.pkl"), path).load()
    tensors: dict[str, np.ndarray] = {}
    _collect(content, "", tensors, set())
    if not tensors:
        raise UserError(
            f"{path}: a TorchScript archive without named weights (torch.jit.freeze makes constants of them)"
            + _REMEDY
        )
    # Weight norm computes `weight` anew for each run, and an archive may hold the last one.
    return {
        key: array
        for key, array in tensors.items()
        if not (key.endswith(".weight") and f"{key}_g" in tensors)
    }


def _collect(value: Any, name: str, tensors: dict[str, np.ndarray], seen: set[int]) -> None:
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return
    parts = value.__dict__.get("attributes", {}) if isinstance(value, _Object) else value
    if isinstance(parts, dict) and id(parts) not in seen:
        seen.add(id(parts))  # an object may hold itself
        for key, part in parts.items():
            _collect(part, f"{name}.{key}" if name else str(key), tensors, seen)


class _Unpickler(pickle.Unpickler):
    """Makes tensors and dictionaries; refuses everything else that a pickle can name."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str, path: Path):
        super().__init__(file)
        self._archive, self._folder, self._path = archive, folder, path

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Object
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): _first,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): _first
                for kind in ("int", "double", "bool", "tensor")
            },
            ("torch", "device"): _first,
        }
        if (module, name) in known:
            return known[module, name]
        raise UserError(
            f"{self._path}: refused: this TorchScript archive wants to run code ({module}.{name}){_REMEDY}"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, _ = pid
        member = self._archive.getinfo(f"{self._folder}data/{key}")
        if member.compress_type != zipfile.ZIP_STORED:  # it may unpack to any size
            raise ValueError("its tensors are compressed, which torch.jit.save does not do")
        return np.frombuffer(self._archive.read(member), dtype)


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = min((offset, *size, *stride)) >= 0 and last < len(storage) and math.prod(size) <= len(storage)
    if 0 not in size and not inside:
        raise ValueError("a tensor has more values than the file holds")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    bytes_of = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, [step * bytes_of for step in stride])
    return np.array(view)
