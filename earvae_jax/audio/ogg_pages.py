"""Pages of an Ogg that FFmpeg passes over without a word, as where their checksum is wrong (RFC 3533)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MARK = b"OggS\0"
_HEADER = struct.Struct("<5sBqIIIB")  # mark, flags, granule, serial, number, checksum, segments
_CONTINUED = 1  # the page begins with the rest of a packet
_READ = 1 << 20  # bytes looked at at most


class Page(NamedTuple):
    """One page by its header."""

    offset: int  # of its first byte
    granule: int  # samples of its stream up to its end; −1 where no packet ends in it
    serial: int  # of its stream
    begins_packet: bool


def pages_from(path: Path, offset: int) -> Iterator[Page]:
    """The pages from a byte on, whole or not; nothing is checked but that they begin as pages do."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(_READ)
    place = content.find(_MARK)
    while place >= 0 and len(content) >= place + _HEADER.size:
        _, flags, granule, serial, _, _, segments = _HEADER.unpack_from(content, place)
        sizes = content[place + _HEADER.size : place + _HEADER.size + segments]
        # A packet ends with a segment of less than 255 bytes, and what follows in the page is another one.
        ends = [size < 255 for size in sizes[:-1]]
        yield Page(offset + place, granule, serial, not flags & _CONTINUED or any(ends))
        behind = place + _HEADER.size + segments + sum(sizes)
        place = content.find(_MARK, min(behind, len(content)))


def samples_passed_over(path: Path, last: int) -> int:
    """Samples of the pages behind the one at byte `last`, the last of which a packet was read; 0 if none."""
    pages = list(pages_from(path, last))
    if not pages:
        return 0
    first, *others = pages
    later = [page for page in others if page.serial == first.serial and page.granule > first.granule]
    if not any(page.begins_packet for page in later):
        return 0
    return later[-1].granule - max(0, first.granule)
