"""Audio: files of every container, through the reader and the commands."""

import random
import struct
from pathlib import Path

import numpy as np

from . import containers, odd
from .corpus import Seeds
from .domains import Case


def make(random: random.Random, seeds: Seeds) -> Case:
    """One odd file below `in`."""
    Path("in").mkdir()
    files = seeds.bytes("audio")
    name = random.choice(sorted(files))
    data, suffix = files[name], Path(name).suffix
    how = random.choice(("bytes", "units", "units", "fields"))
    if how == "fields" and suffix == ".wav":
        data, made = _fields(random, data)
    elif how == "bytes":
        data, made = odd.edited(random, data, list(files.values()))
    else:
        data, made = containers.edited(random, data, suffix, list(files.values()))
    if random.random() < 0.1:
        suffix = random.choice(sorted({Path(name).suffix for name in files}))
    path = Path("in") / odd.name(random, suffix)
    path.write_bytes(data)
    return _reading(random, seeds, str(path), f"{name}: {made}")


def _reading(random: random.Random, seeds: Seeds, path: str, made: str) -> Case:
    from earvae_jax.audio.reader import AudioReader, read

    def blocks():
        with AudioReader(path) as reader:
            for _ in reader.blocks(1 << 14):
                pass

    def piece():
        with AudioReader(path) as reader:
            reader.piece(max(0, reader.announced // 2), 1000)

    how = random.choice(("blocks", "read", "piece", "encode", "encode", "reconstruct", "folder"))
    calls = {"blocks": blocks, "read": lambda: read(path), "piece": piece}
    flags = (f"--checkpoint={seeds.checkpoint}", "--output-dir=output")
    words = {
        "encode": ("encode", *flags, "--", path),
        "reconstruct": ("reconstruct", *flags, *random.choice(((), ("--format=flac",))), "--", path),
        "folder": ("encode", *flags, "--", "in", str(seeds.tone)),
    }
    return Case(f"{how}: {made}", words.get(how), calls.get(how), (path, "in", "output/"))


def _fields(random: random.Random, data: bytes) -> tuple[bytes, str]:
    """Fields of a WAV header, and samples."""
    start = data.find(b"fmt ") + 8
    fields = {"kind": ("<H", 0), "channels": ("<H", 2), "rate": ("<I", 4), "bytes a second": ("<I", 8),
              "block": ("<H", 12), "bits": ("<H", 14)}  # fmt: skip
    name = random.choice((*sorted(fields), "samples"))
    if name == "samples":
        begin = data.find(b"data") + 8
        values = np.array([np.nan, np.inf, -np.inf, 3e38, 1e-42, 1e10], np.float32)
        new = random.choice(values).tobytes() * random.choice((1, 100))
        place = begin + 4 * random.randrange(max(1, (len(data) - begin) // 4 - 100))
        return data[:place] + new + data[place + len(new) :], "samples"
    form, offset = fields[name]
    top = 2 ** (8 * struct.calcsize(form)) - 1
    value = random.choice((0, 1, 2, 3, 5, 6, 7, 8, 17, 32, 64, 255, 8000, 44_100, 65_534, top, top // 2 + 1))
    new = struct.pack(form, min(value, top))
    place = start + offset
    return data[:place] + new + data[place + len(new) :], f"{name} {value}"
