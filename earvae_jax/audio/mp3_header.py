"""What the first frame of an MP3 says of all: Xing or Info (LAME and others), VBRI (Fraunhofer)."""

from pathlib import Path

_SEARCHED = 4096  # bytes: the longest frame, and a little that may stand before it


def sample_count(path: Path, frame_samples: int) -> int:
    """The number of frames that the header states; 0 if it states none."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            a, b, c, d = head[6:10]
            file.seek(10 + (a << 21 | b << 14 | c << 7 | d))
        else:
            file.seek(0)
        start = file.read(_SEARCHED)
    for mark in (b"Xing", b"Info"):
        at = start.find(mark)
        if at >= 0 and len(start) >= at + 12 and start[at + 7] & 1:
            frames = int.from_bytes(start[at + 8 : at + 12])
            return max(0, frames * frame_samples - _added(start[at:]))
    at = start.find(b"VBRI")
    return int.from_bytes(start[at + 14 : at + 18]) * frame_samples if at >= 0 else 0


def _added(tag: bytes) -> int:
    """Samples of priming and padding together, 12 bits each, behind the encoder's name; 0 without them."""
    flags = tag[7]
    encoder = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if not tag[encoder : encoder + 4].startswith((b"LAME", b"Lavc", b"Lavf")):
        return 0
    both = int.from_bytes(tag[encoder + 21 : encoder + 24])
    return (both >> 12) + (both & 0xFFF)
