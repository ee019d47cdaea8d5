"""Reads the first bytes and the chunks of a file: its kind, and how many samples its header announces."""

import mmap
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_UNKNOWN = (0, 2**32 - 1, 2**64 - 1, 2**63 - 1)  # sizes in a header that its writer never completed
_FLAC_START = b"fLaC\x00\x00\x00\x22"  # the marker, and the head of the first block, which has 34 bytes
_HEAD = 16


class Chunks(NamedTuple):
    """How much of an uncompressed file is samples.

    Attributes:
      announced: bytes of samples that the header states; None if it states no size.
      present: bytes of samples in the file, at most as many as announced.
      trailing: bytes after the end that the header states.
    """

    announced: int | None
    present: int
    trailing: int


def head(path: Path) -> bytes:
    """The bytes that `kind` and `is_playlist` look at."""
    with path.open("rb") as file:
        return file.read(_HEAD)


def kind(head: bytes) -> str:
    """The kind by the first bytes: "wav", "rf64", "w64", "aiff", "caf", "au", "flac", or "" for others."""
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] in (b"RF64", b"BW64"):
        return "rf64"
    if head == _W64_RIFF:
        return "w64"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    return {b"caff": "caf", b".snd": "au", b"dns.": "au", b"fLaC": "flac"}.get(head[:4], "")


def is_mpeg(head: bytes) -> bool:
    """Whether the file begins with MPEG audio or with an ID3 tag."""
    return head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def is_playlist(head: bytes) -> bool:
    """Whether the file is a playlist: a text that names other files, which nobody asked to open."""
    return head.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith((b"#EXTM3U", b"ffconcat", b"[playlist]"))


def chunks(path: Path, kind: str) -> Chunks | None:
    """What the header of an uncompressed file says of its samples; None for other kinds, or without any."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if kind == "au":
            return _au(file, size)
        if kind in _CHUNKED:
            return _chunked(file, size, kind)
    return None


def promise(path: Path, kind: str, samples: int, sample_rate: int) -> tuple[int, list[str]]:
    """The samples that a header announces (0 if it states no size), and what is odd about it, in words.

    Args:
      samples: the number that a reader finds in the file.
      sample_rate: in Hz.
    """
    found = chunks(path, kind)
    if found is None:
        return samples, []
    if found.announced is None:
        return 0, ["its header does not say how long it is"]
    notes = []
    second = found.present * sample_rate // max(1, samples)
    if found.trailing > max(1024, second // 10):  # tags and an odd byte at the end are no loss
        notes.append(f"{found.trailing} bytes after its announced end are not read")
    return round(samples * found.announced / max(1, found.present)), notes


def flac_behind(path: Path, place: int) -> int | None:
    """The byte at which the next FLAC of a joined file begins, at or after `place`; None if there is none."""
    if place >= path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(_FLAC_START, place)
    return found if found >= 0 else None


# For each kind: bytes before the first chunk, bytes of a chunk's name, format of its size, whether the size
# counts the chunk's own head, the alignment of chunks, and the name of the chunk with the samples.
_CHUNKED = {
    "wav": (12, 4, "<I", False, 2, b"data"),
    "rf64": (12, 4, "<I", False, 2, b"data"),
    "aiff": (12, 4, ">I", False, 2, b"SSND"),
    "caf": (8, 4, ">Q", False, 1, b"data"),
    "w64": (40, 16, "<Q", True, 8, b"data"),
}


def _chunked(file: BinaryIO, size: int, kind: str) -> Chunks | None:
    position, name_size, form, counts_head, alignment, samples_name = _CHUNKED[kind]
    file.seek(0)
    if file.read(4) == b"RIFX":
        form = ">I"
    head_size = name_size + struct.calcsize(form)
    found, long_size = None, None
    while position + head_size <= size:
        file.seek(position)
        head = file.read(head_size)
        name = head[:4]
        if not _is_name(name):
            break
        length = struct.unpack(form, head[name_size:])[0] - head_size * counts_head
        if name == b"ds64":  # RF64's 64-bit sizes: of the file, then of the samples
            long_size = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))[1]
        begin = position + head_size
        if name == samples_name:
            if length == 2**32 - 1 and long_size is not None:
                length = long_size
            unknown = length in _UNKNOWN or length < 0
            present = size - begin if unknown else min(length, size - begin)
            found = None if unknown else length, present
            if unknown:
                position = size
                break
        if length < 0:
            break
        position = begin + length + (-(begin + length) % alignment if kind != "caf" else 0)
    return found and Chunks(*found, max(0, size - position))


def _au(file: BinaryIO, size: int) -> Chunks | None:
    form = ">4sII" if file.read(4) == b".snd" else "<4sII"
    file.seek(0)
    head = file.read(12)
    if len(head) < 12:
        return None
    _, begin, length = struct.unpack(form, head)
    if length in _UNKNOWN:
        return Chunks(None, max(0, size - begin), 0)
    return Chunks(length, max(0, min(length, size - begin)), max(0, size - begin - length))


def _is_name(name: bytes) -> bool:
    """Whether this can be the name of a chunk; the beginning of another file cannot."""
    return all(0x20 <= letter < 0x7F for letter in name) and name not in (b"RIFF", b"FORM", b"caff", b"RF64")
