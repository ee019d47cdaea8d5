"""Audio containers cut into their chunks, boxes, pages and frames, and edits of those."""

import random
import struct
from collections.abc import Callable, Sequence

from . import odd


def _chunks(form: str, id_size: int, header: int, *, whole: bool = False, align: int = 1) -> Callable:
    """Chunks of an identifier and a size; `whole`: the size counts both, too."""
    size_size = struct.calcsize(form)

    def cut(data: bytes) -> list[bytes]:
        units, position = [data[:header]], header
        while position + id_size + size_size <= len(data):
            size = struct.unpack_from(form, data, position + id_size)[0]
            size += 0 if whole else id_size + size_size
            size += -size % align
            if size < id_size + size_size:
                break
            units.append(data[position : position + size])
            position += size
        return [*units, data[position:]]

    return cut


def _between(mark: bytes) -> Callable:
    def cut(data: bytes) -> list[bytes]:
        first, *rest = data.split(mark)
        return [first, *(mark + part for part in rest)]

    return cut


def _boxes(data: bytes) -> list[bytes]:
    """The boxes of MP4; the head of a box that holds others is a unit of its own."""
    units, position = [], 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        step = 8 if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl") else size
        if step < 8:
            break
        units.append(data[position : position + step])
        position += step
    return [*units, data[position:]]


def _flac(data: bytes) -> list[bytes]:
    units, position, last = [data[:4]], 4, False
    while not last and position + 4 <= len(data):
        last = bool(data[position] & 0x80)
        size = 4 + int.from_bytes(data[position + 1 : position + 4], "big")
        units.append(data[position : position + size])
        position += size
    return [*units, *_between(b"\xff\xf8")(data[position:])]


_CUTS = {
    ".wav": _chunks("<I", 4, 12, align=2),
    ".rf64": _chunks("<I", 4, 12, align=2),
    ".aiff": _chunks(">I", 4, 12, align=2),
    ".caf": _chunks(">q", 4, 8),
    ".w64": _chunks("<q", 16, 40, whole=True, align=8),
    ".flac": _flac,
    ".ogg": _between(b"OggS"),
    ".opus": _between(b"OggS"),
    ".mp3": _between(b"\xff\xfb"),
    ".aac": _between(b"\xff\xf1"),
    ".ac3": _between(b"\x0b\x77"),
    ".m4a": _boxes,
    ".mov": _boxes,
    ".mkv": _between(b"\xa3"),
    ".mka": _between(b"\xa3"),
    ".webm": _between(b"\xa3"),
}


def edited(random: random.Random, data: bytes, suffix: str, others: Sequence[bytes]) -> tuple[bytes, str]:
    """One to three edits of whole units, or of the bytes with which one begins."""
    units = [unit for unit in _CUTS.get(suffix, _pieces)(data) if unit] or [data]
    names = []
    for _ in range(random.choice((1, 1, 2, 3))):
        index = (
            random.randrange(len(units)) if random.random() < 0.6 else random.randrange(min(4, len(units)))
        )
        unit = units[index]
        how = random.choice(
            ("drop", "double", "swap", "head", "head", "head", "foreign", "many", "cut", "empty")
        )
        names.append(f"{how} {index}")
        if how == "drop" and len(units) > 1:
            del units[index]
        elif how == "double":
            units.insert(index, unit)
        elif how == "swap":
            other = random.randrange(len(units))
            units[index], units[other] = units[other], unit
        elif how == "head":
            size = random.choice((8, 16, 48))
            units[index] = odd.edited(random, unit[:size], others)[0] + unit[size:]
        elif how == "foreign":
            foreign = random.choice(_CUTS.get(suffix, _pieces)(random.choice(others)))
            units.insert(index, foreign[:100_000])
        elif how == "many":
            units[index:index] = [unit] * (1 + 200_000 // (len(unit) + 1))
        elif how == "cut":
            units[index] = unit[: len(unit) // 2]
        elif how == "empty":
            units[index] = unit[:8] + bytes(max(0, len(unit) - 8))
    if suffix in (".ogg", ".opus") and random.random() < 0.7:
        units = [_with_checksum(unit) for unit in units]
        names.append("checksums")
    return b"".join(units), "units: " + ", ".join(names)


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + 512] for start in range(0, len(data), 512)]


_CRC = []
for _byte in range(256):
    _value = _byte << 24
    for _ in range(8):
        _value = ((_value << 1) ^ 0x04C11DB7 if _value & 0x80000000 else _value << 1) & 0xFFFFFFFF
    _CRC.append(_value)


def _with_checksum(page: bytes) -> bytes:
    """A page of Ogg whose checksum is right, so that what is wrong inside is read."""
    if page[:4] != b"OggS" or len(page) < 27:
        return page
    page, value = page[:22] + bytes(4) + page[26:], 0
    for byte in page[:70_000]:
        value = ((value << 8) & 0xFFFFFFFF) ^ _CRC[value >> 24 ^ byte]
    return page[:22] + value.to_bytes(4, "little") + page[26:]
