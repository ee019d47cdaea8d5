"""Odd numbers, texts and names, and edits of bytes that every format may meet."""

import os
import random
import struct
from collections.abc import Callable, Sequence

NUMBERS = (
    0, -0.0, 1, -1, 2, 3, 7, 127, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1,
    2**63,
    2**64, 10**30, 10**400, -(2**63), 0.5, 1e-45, 1e-308, 5e-324, 1e308, -1e308, 1e39,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "0", "1e999", "null", "nan", "-", "--", "..", "../..", "/", "\\", "a\nb", "a\rb", "a\x00b",
    "\x1b[31m",
    "\ud800", "ü", "ε", "\u202e", "💥", "%s%n", "{}", "{0.__class__}", "${HOME}", "$(touch payload-ran)",
    "a" * 300, "a" * 5_000, "l2", "ln", "float32", "__class__", "hf://a/b/c", "file:///etc/passwd",
)  # fmt: skip
VALUES = (
    None, True, False, [], {}, [None], [[]], [1, [2]], [-1], [0], [1.5], ["2"], [True], [2] * 40, [1] * 1000,
    {"": None}, {"config": {}}, {"a": {"b": {"c": []}}},
)  # fmt: skip


def value(random: random.Random) -> object:
    """Any of them."""
    return random.choice(random.choice((NUMBERS, TEXTS, VALUES)))


def name(random: random.Random, suffix: str) -> str:
    """A file name; in one of eight cases an odd one."""
    if random.random() < 0.875:
        return f"odd{suffix}"
    stem = random.choice(
        ("a\nb", "-x", "--help", "*", "[a]", "?", "%d%s", "ü", "a b", "'", '"', "$HOME", "\udcff",
            "\x1b[31m", "a" * 240, ".h", "..x", "~", "=", "#", "hf:")
    )  # fmt: skip
    return stem + suffix


def argument(text: str) -> str:
    """What a shell can pass of it: no zero, and only such surrogates as stand for bytes."""
    return os.fsdecode(text.replace("\0", "").encode("utf-8", "surrogatepass")[:100_000])


Edit = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _flip(random, data, others):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _flip_early(random, data, others):
    data = bytearray(data)
    for _ in range(random.choice((1, 2, 4))):
        data[random.randrange(min(len(data), 128))] = random.choice(
            (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
        )
    return bytes(data)


def _cut(random, data, others):
    return data[
        : random.choice((0, 1, 2, 3, 4, 7, 8, 12, 16, 44, random.randrange(len(data)), len(data) - 1))
    ]


def _behead(random, data, others):
    return data[random.randrange(1, min(len(data), 4096) + 1) :]


def _remove(random, data, others):
    start = random.randrange(len(data))
    return data[:start] + data[start + random.choice((1, 4, 100, 5000)) :]


def _double(random, data, others):
    start = random.randrange(len(data))
    stop = min(len(data), start + random.choice((1, 4, 100, 5000)))
    return data[:stop] + data[start:stop] * random.choice((1, 2, 50)) + data[stop:]


def _insert(random, data, others):
    start = random.randrange(len(data) + 1)
    return data[:start] + random.randbytes(random.choice((1, 2, 4, 100, 5000))) + data[start:]


def _overwrite(random, data, others):
    start, size = random.randrange(len(data)), random.choice((2, 8, 64, 4096))
    fill = random.choice((b"\0", b"\xff", None))
    new = random.randbytes(size) if fill is None else fill * size
    return (data[:start] + new + data[start + size :])[: len(data)]


def _splice(random, data, others):
    other = random.choice(others)
    return data[: random.randrange(len(data))] + other[random.randrange(len(other) or 1) :]


def _foreign_head(random, data, others):
    size = random.choice((4, 8, 12, 16, 64))
    return random.choice(others)[:size] + data[size:]


def _number(random, data, others):
    """A whole number of 2, 4 or 8 bytes somewhere, most likely early: where lengths stand."""
    form = random.choice("HIQhiqfd")
    order = random.choice("<>")
    size = struct.calcsize(form)
    limit = random.choice((64, 512, len(data)))
    start = random.randrange(max(1, min(limit, len(data)) - size))
    if form in "fd":
        new = struct.pack(order + form, random.choice((float("nan"), float("inf"), -1e30, 1e-40, 0.0)))
    else:
        bits = 8 * size
        odd = random.choice((0, 1, len(data), len(data) + 1, (1 << bits) - 1, 1 << (bits - 1),
            (1 << (bits - 1)) - 1, random.getrandbits(bits)))  # fmt: skip
        new = (odd % (1 << bits)).to_bytes(size, "little" if order == "<" else "big")
    return data[:start] + new + data[start + size :]


EDITS: tuple[Edit, ...] = (
    _flip, _flip, _flip_early, _cut, _behead, _remove, _double, _insert, _overwrite, _splice,
    _foreign_head, _number, _number,
)  # fmt: skip


def edited(random: random.Random, data: bytes, others: Sequence[bytes]) -> tuple[bytes, str]:
    """One to three edits of the bytes, and their names."""
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        edit = random.choice(EDITS)
        data = edit(random, data, others)
        names.append(edit.__name__.strip("_"))
    return data, "+".join(names)
