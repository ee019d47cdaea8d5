"""Latent files: what stands in a `.npz`, and folders of them."""

import functools
import io
import json
import random
from pathlib import Path

import numpy as np

from . import odd, odd_json, zips
from .corpus import Seeds
from .domains import Case


def make(random: random.Random, seeds: Seeds) -> Case:
    """One odd file below `in`."""
    Path("in").mkdir()
    files = seeds.bytes("latents")
    name = random.choice(sorted(files))
    data = files[name]
    how = random.choice(("bytes", "zip", "metadata", "metadata", "arrays", "arrays", "header"))
    if how == "bytes":
        data, made = odd.edited(random, data, list(files.values()))
    elif how == "zip":
        data, made = zips.edited(random, data)
    else:
        edit = {"metadata": _metadata, "arrays": _arrays, "header": _header}[how]
        data, made = edit(random, zips.members(data))
    path = Path("in") / odd.name(random, random.choice((".npz", ".npz", ".npz", ".npy", "")))
    path.write_bytes(data)
    path, made = str(path), f"{name}: {made}"
    if random.random() < 0.4:
        from earvae_jax.infer.latents import read_latents

        return Case(made, call=functools.partial(read_latents, path), names=(path,))
    model = seeds.checkpoint if name.startswith("plain") else seeds.transformer_checkpoint
    flags = [
        f"--checkpoint={model}",
        "--output-dir=output",
        *random.choice(((), ("--latent=sample",), ("--format=flac",))),
    ]
    given = path if random.random() < 0.85 else "in"
    return Case(made, ("decode", *flags, "--", given), names=(path, given, "output/"))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data))


def _metadata(random: random.Random, entries: dict[str, bytes]) -> tuple[bytes, str]:
    values = json.loads(str(_array(entries["metadata.npy"])))
    if random.random() < 0.5:
        key = random.choice(("sample_rate", "samples", "channels"))
        values[key] = random.choice((*odd.NUMBERS, values[key] * 2, values[key] + 1, values[key] - 1, 44_100))
        text, made = json.dumps(values), f"{key} {str(values[key])[:40]}"
    else:
        data, made = odd_json.text(random, values)
        text = data.decode("utf-8", "replace").rstrip("\0")
    kind = random.choice(("text", "text", "text", "bytes", "list", "object"))
    array = {
        "text": np.asarray(text),
        "bytes": np.asarray(text.encode()),
        "list": np.asarray([text] * 2),
    }.get(kind, np.asarray({"x": text}, object))
    return zips.packed(list((entries | {"metadata.npy": _npy(array)}).items())), f"metadata {kind}: {made}"


def _arrays(random: random.Random, entries: dict[str, bytes]) -> tuple[bytes, str]:
    which = random.choice(("mean.npy", "std.npy", "both"))
    edits = {
        "nan": lambda a: np.full_like(a, random.choice((np.nan, np.inf, -np.inf))),
        "one nan": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 5, np.float32(np.nan), a),
        "huge": lambda a: np.full(a.shape, random.choice((3e38, 1e30, -1e20, 6e4)), np.float32),
        "tiny": lambda a: np.full(a.shape, 1e-42, np.float32),
        "double": lambda a: a.astype(np.float64) * 1e300,
        "complex": lambda a: a.astype(np.complex64),
        "integers": lambda a: a.astype(random.choice((np.int8, np.int64, np.bool_, np.uint16))),
        "big-endian": lambda a: a.astype(">f4"),
        "column order": lambda a: np.asfortranarray(a),
        "text": lambda a: a.astype("U8"),
        "objects": lambda a: a.astype(object),
        "dates": lambda a: np.zeros(a.shape, "datetime64[s]"),
        "records": lambda a: np.zeros(a.shape, [("a", "f4"), ("b", "i4")]),
        "no axes": lambda a: np.float32(1),
        "one axis": lambda a: a.reshape(-1),
        "three axes": lambda a: a[None],
        "turned": lambda a: a.T,
        "empty": lambda a: a[:0],
        "no width": lambda a: a[:, :0],
        "half of it": lambda a: a[: len(a) // 2],
        "one": lambda a: a[:1],
        "twice": lambda a: np.concatenate([a, a]),
        "wider": lambda a: np.concatenate([a, a], axis=1),
        "negative": lambda a: -np.abs(a) - 1,
    }
    name = random.choice(sorted(edits))
    for entry in ("mean.npy", "std.npy") if which == "both" else (which,):
        entries[entry] = _npy(edits[name](_array(entries[entry])))
    return zips.packed(list(entries.items())), f"{which} {name}"


def _header(random: random.Random, entries: dict[str, bytes]) -> tuple[bytes, str]:
    """The text in front of an array."""
    entry = random.choice(sorted(entries))
    data = entries[entry]
    old = data[10 : 10 + int.from_bytes(data[8:10], "little")]
    shapes = ("(10000000000, 4)", "(2000000000, 4)", "(-1, 4)", "(4294967296, 4294967296)", "()", "(0, 4)",
        "(3,)", "[3]", "(1.5, 2)", "(" * 500)  # fmt: skip
    kinds = ("'|O'", "'<f2'", "'>f8'", "'|V1000000'", "'<U100000000'", "'|S0'", "[('a', '<f4')]", "'<c8'",
        "None", "__import__('os')")  # fmt: skip
    what = random.choice(("shape", "descr", "order", "bytes", "version", "length"))
    if what == "bytes":
        data, made = odd.edited(random, data, [old])
        entries[entry] = data
        return zips.packed(list(entries.items())), f"{entry}: {made}"
    values = {"descr": "'<f4'", "fortran_order": "False", "shape": "(4, 4)"}
    if what == "shape":
        values["shape"] = random.choice(shapes)
    elif what == "descr":
        values["descr"] = random.choice(kinds)
    elif what == "order":
        values["fortran_order"] = random.choice(("True", "1", "None", "'x'"))
    header = "{" + ", ".join(f"'{key}': {text}" for key, text in values.items()) + "}"
    header = header.encode().ljust(len(old) - 1) + b"\n"
    length = random.choice((0, 2**16 - 1, 5)) if what == "length" else len(header)
    version = (
        random.choice((b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\xff\xff"))
        if what == "version"
        else data[6:8]
    )
    entries[entry] = data[:6] + version + length.to_bytes(2, "little") + header + data[10 + len(old) :]
    return zips.packed(list(entries.items())), f"{entry} header: {values}"
