"""Reads a folder that Orbax wrote, with TensorStore alone.

Orbax reads all arrays in one loop. If an array or its metadata is damaged, the loop ends while other arrays
are still being read, and each of these prints a traceback later, from its own thread.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from earvae_jax.borders import explaining, read_json
from earvae_jax.errors import UserError
from earvae_jax.parameters import differences

METADATA = "_CHECKPOINT_METADATA"  # the file that every such folder has
_ARRAY = b"/zarr.json"  # the key that every array has in the store


def custom_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata that was saved with the arrays.

    Raises:
      UserError: the folder holds no metadata, or is damaged.
    """
    values = read_json(path / METADATA, "checkpoint")
    with explaining(path, "damaged checkpoint"):
        return dict(values["custom_metadata"] or {})


def arrays(path: Path, expected: Mapping) -> dict[str, jax.Array]:
    """All arrays by name, on the first local device; `expected` has their names, shapes and dtypes.

    Raises:
      UserError: the arrays are not the expected ones, or one of them cannot be read.
    """
    _refuse_pipes_and_devices(path)
    device = jax.local_devices()[0]
    with explaining(path, "damaged checkpoint"):
        opened = {name: opening.result() for name, opening in _opening(path).items()}
        found = {name: _Described(array) for name, array in opened.items()}
    if problems := differences(expected, found):
        raise UserError(f"{path}: the weights do not fit the model config: {'; '.join(problems)}")
    with explaining(path, "damaged checkpoint"):
        reading = {name: array.read() for name, array in opened.items()}
        # One after the other, so that memory does not hold all of them twice.
        return {name: jax.device_put(reading.pop(name).result(), device) for name in opened}


class _Described:
    """Shape and dtype of an array as numpy has them."""

    def __init__(self, array: Any):
        self.shape, self.dtype = array.shape, array.dtype.numpy_dtype


def _opening(path: Path) -> dict[str, Any]:
    """The futures with which TensorStore opens all arrays, by name."""
    import tensorstore

    # TensorStore takes no `..` in a path.
    stores = [manifest.parent.resolve() for manifest in path.glob("*/manifest.ocdbt")]
    if not stores:
        raise UserError(f"{path}: damaged checkpoint (its arrays cannot be listed)")
    opening = {}
    for store in stores:
        base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{store}/"}}
        keys = tensorstore.KvStore.open(base).result().list().result()
        for name in (key.removesuffix(_ARRAY).decode() for key in keys if key.endswith(_ARRAY)):
            spec = {"driver": "zarr3", "kvstore": base | {"path": f"{name}/"}}
            opening[name] = tensorstore.open(spec, read=True, open=True)
    return opening


def _refuse_pipes_and_devices(path: Path) -> None:
    """Refuses pipes, which might block a reader for ever, and devices, which might never end."""
    for folder, names, files in os.walk(path):
        for part in (Path(folder, name) for name in [*names, *files]):
            if not (part.is_file() or part.is_dir()):
                raise UserError(f"{path}: damaged checkpoint ({part.relative_to(path)} is not a file)")
