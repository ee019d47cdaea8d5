"""Weights: files of torch, safetensors, checkpoints of this project as a file and as a folder."""

import functools
import json
import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np

from . import odd, odd_json, pickles, zips
from .corpus import Seeds
from .domains import Case

_STATED = ("--sample-rate", "8000", "--dim-heads", "32", "--no-final-tanh")


def make(random: random.Random, seeds: Seeds) -> Case:
    """One odd file or folder below `in`, and a command or call that reads it."""
    Path("in").mkdir()
    kind = random.choice((_torch, _torch, _torch, _foreign_safetensors, _own_safetensors, _folder, _folder))
    return kind(random, seeds)


def _torch(random: random.Random, seeds: Seeds) -> Case:
    files = {name: data for name, data in seeds.bytes("weights").items() if not name.endswith(".safetensors")}
    name = random.choice(sorted(files))
    data = files[name]
    how = random.choice(("bytes", "zip", "pickle", "pickle", "payload", "tensors", "tensors"))
    if how == "tensors":
        data, made = _odd_tensors(random, data)
    elif how == "bytes":
        data, made = odd.edited(random, data, list(files.values()))
    elif data[:2] == b"PK":
        if how == "zip":
            data, made = zips.edited(random, data)
        else:
            entries = zips.members(data)
            inside = next(name for name in entries if name.endswith("data.pkl"))
            edit = pickles.payload if how == "payload" else pickles.edited
            entries[inside], made = edit(random, entries[inside])
            data = zips.packed(list(entries.items()))
    else:
        edit = pickles.payload if how == "payload" else pickles.edited
        data, made = edit(random, data)
    suffix = random.choice((Path(name).suffix, Path(name).suffix, ".pyt", ".bin", ".safetensors"))
    return _converting(random, _write(random, data, suffix), f"{name}: {made}")


def _converting(random: random.Random, path: str, made: str) -> Case:
    if random.random() < 0.6:
        from earvae_jax.convert import from_torch
        from earvae_jax.convert.config_from_tensors import Stated

        read = functools.partial(from_torch.read, path, stated=Stated(8000, 32, False))
        return Case(made, call=read, names=(path,))
    return Case(made, ("convert", "from-torch", *_STATED, "--", path, "output/model"), names=(path,))


def _odd_tensors(random: random.Random, data: bytes) -> tuple[bytes, str]:
    import io

    import torch

    state = torch.load(io.BytesIO(data), weights_only=True)
    part = state if "gen" not in state else random.choice((state["gen"], state["gen_ema"]))
    key = random.choice(sorted(part))
    tensor = part[key]
    edits = {
        "nan": lambda: torch.full_like(tensor, random.choice((float("nan"), float("inf"), 1e-42, 3e38))),
        "double": lambda: tensor.double() * 1e300,
        "half": lambda: tensor.to(random.choice((torch.float16, torch.bfloat16))),
        "integers": lambda: tensor.to(random.choice((torch.int8, torch.int64, torch.bool, torch.uint8))),
        "complex": lambda: tensor.to(torch.complex64),
        "eight bits": lambda: tensor.to(torch.float8_e4m3fn),
        "quantized": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "sparse": lambda: tensor.to_sparse(),
        "sparse rows": lambda: tensor.reshape(len(tensor), -1).to_sparse_csr(),
        "meta": lambda: tensor.to("meta"),
        "nested": lambda: torch.nested.nested_tensor([tensor, tensor]),
        "expanded": lambda: torch.zeros(1).expand(random.choice((7, 10**6, 2 * 10**9, 10**12))),
        "expanded in three": lambda: torch.zeros(1, 1, 1).expand(random.choice((4, 60_000)), 2,
        random.choice((7, 90_000))),
        "strides": lambda: torch.as_strided(tensor, tensor.shape, [0] * tensor.dim()),
        "no axes": lambda: torch.tensor(1.0),
        "empty": lambda: torch.zeros(random.choice(((0,), (0, 3), (4, 0, 7)))),
        "many axes": lambda: tensor.reshape(*[1] * random.choice((20, 60)), *tensor.shape),
        "transposed": lambda: tensor.permute(*reversed(range(tensor.dim()))),
        "parameter": lambda: torch.nn.Parameter(tensor),
        "buffer in the wrong place": lambda: state,
        "a number": lambda: random.choice(odd.NUMBERS),
        "a text": lambda: "x",
        "conjugate": lambda: tensor.to(torch.complex64).conj(),
        "negative": lambda: torch._neg_view(tensor),
        "larger": lambda: torch.cat([tensor, tensor]),
    }  # fmt: skip
    name = random.choice(sorted(edits))
    made = f"{key} {name}"
    part[key] = edits[name]()
    if random.random() < 0.2:
        new = random.choice(
            (f"encoder.layers.{random.choice((9, 10**6, 10**30))}.layers.0.x", "", 3, None, ("a", "b"),
                b"x", "a\nb", f"{key}.encoder.layers.0.x", "x" * 9000)
        )  # fmt: skip
        part[new] = tensor
        made += f", and {str(new)[:40]!r}"
    if random.random() < 0.05:
        state["itself"] = state
        made += ", and itself"
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer, _use_new_zipfile_serialization=random.random() < 0.8)
    except Exception as error:  # noqa: BLE001 - not all of this can be saved: the case is the whole file then
        return data, f"{made} cannot be saved ({type(error).__name__})"
    return buffer.getvalue(), made


def _odd_header(random: random.Random, data: bytes) -> tuple[bytes, str]:
    """The JSON in front of a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if "__metadata__" in header and random.random() < 0.6:
        inside = header["__metadata__"]
        for key in list(inside):
            text, made = odd_json.text(
                random, json.loads(inside[key]) if inside[key][:1] in "{[" else inside[key]
            )
            inside[key] = text.decode("utf-8", "replace")
        written = json.dumps(header).encode()
    elif random.random() < 0.6:
        key = random.choice([key for key in header if key != "__metadata__"])
        entry = header[key]
        change = random.choice(
            (
                {"dtype": random.choice(("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "U64",
                "F4", "C64", "X"))},
                {"shape": random.choice(([], [0], [2**31], [2**62, 4], [-1], [1] * 70, [1.5], "x",
                entry["shape"][::-1]))},
                {"data_offsets": random.choice(([0, 0], [0, 2**63], [8, 4], [0, len(body)], [0,
                len(body) + 1], "x"))},
            )
        )  # fmt: skip
        entry |= change
        made, written = f"{key}: {change}", json.dumps(header).encode()
    else:
        written, made = odd_json.text(random, header)
    length = (
        len(written)
        if random.random() < 0.9
        else random.choice((0, 1, size, 2**63, 2**64 - 1, len(data), 10**8))
    )
    return struct.pack("<Q", length) + written + body, f"header: {made}"


def _odd_safetensors(random: random.Random, data: bytes, others: list[bytes]) -> tuple[bytes, str]:
    how = random.random()
    if how < 0.6:
        return _odd_header(random, data)
    if how < 0.7:
        size = 8 + struct.unpack("<Q", data[:8])[0]
        count = (len(data) - size) // 4
        values = np.frombuffer(data[size : size + 4 * count], np.float32).copy()
        values[random.randrange(count) :] = random.choice((np.nan, np.inf, 1e-42, 3e38, -3e38))
        return data[:size] + values.tobytes(), "odd values"
    return odd.edited(random, data, others)


def _foreign_safetensors(random: random.Random, seeds: Seeds) -> Case:
    files = seeds.bytes("weights")
    name = random.choice(sorted(name for name in files if name.endswith(".safetensors")))
    data, made = _odd_safetensors(random, files[name], list(files.values()))
    return _converting(random, _write(random, data, ".safetensors"), f"{name}: {made}")


def _own_safetensors(random: random.Random, seeds: Seeds) -> Case:
    files = seeds.bytes("models")
    name = random.choice(sorted(files))
    data, made = _odd_safetensors(random, files[name], list(files.values()))
    return _loading(random, seeds, _write(random, data, ".safetensors"), f"{name}: {made}")


def _loading(random: random.Random, seeds: Seeds, path: str, made: str) -> Case:
    import earvae_jax
    from earvae_jax import checkpoints

    names = path, str(seeds.tone)
    calls = {
        "load": functools.partial(earvae_jax.load, path),
        "read_info": functools.partial(checkpoints.read_info, path),
    }
    words = {
        "info": ("info", "--", path),
        "encode": ("encode", str(seeds.tone), "--output-dir", "output", f"--checkpoint={path}"),
        "to-torch": ("convert", "to-torch", "--", path, "output/weights.pyt"),
        "from-torch": ("convert", "from-torch", *_STATED, "--", path, "output/model"),
    }
    how = random.choice(("load", "load", "load", "read_info", "info", "encode", "to-torch", "from-torch"))
    return Case(f"{how}: {made}", words.get(how), calls.get(how), names)


def _folder(random: random.Random, seeds: Seeds) -> Case:
    path = Path("in") / odd.name(random, "")
    source = random.choice((seeds.transformer_checkpoint, seeds.checkpoint.with_suffix("")))
    shutil.copytree(source, path)
    made = []
    for _ in range(random.choice((1, 1, 2, 3))):
        made.append(_odd_part(random, path))
    return _loading(random, seeds, str(path), " + ".join(made))


def _odd_part(random: random.Random, folder: Path) -> str:
    parts = sorted(folder.rglob("*"))
    if not parts:
        return "nothing is left"
    part = random.choice(parts)
    name = part.relative_to(folder)
    if part.is_symlink() or not part.is_file() or random.random() < 0.25:
        try:
            return f"{name}: {_replaced(random, part, parts)}"
        except OSError as error:  # an edit before this one took the place
            return f"{name}: {error.strerror}"
    data = part.read_bytes()
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if value is not None and random.random() < 0.85:
        data, made = odd_json.text(random, value)
    else:
        data, made = odd.edited(random, data, [other.read_bytes() for other in parts if other.is_file()])
    part.write_bytes(data)
    return f"{name}: {made}"


def _replaced(random: random.Random, part: Path, parts: list[Path]) -> str:
    how = random.choice(
        ("gone", "folder", "file", "loop", "dangling", "/dev/zero", "/dev/full", "pipe", "renamed",
            "other", "extra", "unreadable")
    )  # fmt: skip
    if how == "extra":
        (part / "x" if part.is_dir() else part.with_name("x")).write_bytes(b"{}")
        return how
    if how == "unreadable":
        part.chmod(0)
        return how
    if how == "renamed":
        part.rename(part.with_name("y"))
        return how
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        part.unlink()
    if how == "folder":
        part.mkdir()
    elif how == "file":
        part.write_bytes(b"{}")
    elif how == "pipe":
        os.mkfifo(part)
    elif how in ("loop", "dangling", "/dev/zero", "/dev/full", "other"):
        aims = {"loop": part.name, "dangling": "nowhere", "other": random.choice(parts).absolute()}
        part.symlink_to(aims.get(how, how))
    return how


def _write(random: random.Random, data: bytes, suffix: str) -> str:
    path = Path("in") / odd.name(random, suffix)
    path.write_bytes(data)
    return str(path)
