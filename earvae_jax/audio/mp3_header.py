"""The count of frames in the first frame of an MP3: Xing or Info (LAME and others), VBRI (Fraunhofer)."""

from pathlib import Path

_SEARCHED = 4096  # bytes: the longest frame, and a little that may stand before it


def frame_count(path: Path) -> int:
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
            return int.from_bytes(start[at + 8 : at + 12])
    at = start.find(b"VBRI")
    return int.from_bytes(start[at + 14 : at + 18]) if at >= 0 else 0
