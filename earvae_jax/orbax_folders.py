"""A look at a folder of Orbax before Orbax reads it.

Where one array cannot be read, Orbax's own loop ends with the others on their way: each prints a traceback
later, from a thread of its own. TensorStore alone says quietly what is wrong.
"""

import os
from pathlib import Path
from typing import Any

from earvae_jax.borders import explaining, read_json
from earvae_jax.errors import UserError

_AT_ONCE = 32  # arrays that are read side by side
_ARRAY = b"/zarr.json"  # the key that every array has in the store


def check(path: Path, *, values: bool = True) -> None:
    """Reads all arrays of the checkpoint in the folder, or opens them where no `values` are wanted.

    Raises:
      UserError: an array cannot be read, or there is a pipe or a device in the folder, which might never end.
    """
    for folder, names, files in os.walk(path):
        for part in (Path(folder, name) for name in [*names, *files]):
            if not (part.is_file() or part.is_dir()):
                raise UserError(f"{path}: damaged checkpoint ({part.relative_to(path)} is no file)")
    for described in sorted(path.glob("*/_METADATA")):
        if not (described.parent / "manifest.ocdbt").exists():
            raise UserError(f"{path}: damaged checkpoint (no {described.parent.name}/manifest.ocdbt)")
        tree = read_json(described, "list of arrays")
        with explaining(path, "damaged checkpoint"):
            _read_store(described.parent.absolute(), _names(tree), values)


def _names(tree: Any) -> set[str]:
    """The arrays that Orbax will ask for."""
    leaves = tree["tree_metadata"].values()
    return {".".join(str(part["key"]) for part in leaf["key_metadata"]) for leaf in leaves}


def _read_store(store: Path, expected: set[str], values: bool) -> None:
    import tensorstore

    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}})
    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{store}/"}}
    keys = tensorstore.KvStore.open(base, context=context).result().list().result()
    names = [key.removesuffix(_ARRAY).decode() for key in keys if key.endswith(_ARRAY)]
    if missing := expected - set(names):
        raise ValueError(f"{len(missing)} arrays are missing, {sorted(missing)[0]} among them")
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        specs = [{"driver": "zarr3", "kvstore": base | {"path": f"{name}/"}} for name in some]
        opening = [tensorstore.open(spec, read=True, open=True, context=context) for spec in specs]
        arrays = [each.result() for each in opening]
        if values:
            for read in [array.read() for array in arrays]:
                read.result()
