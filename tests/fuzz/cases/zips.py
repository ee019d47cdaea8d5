"""Edits of ZIP archives, which `.npz` and torch files are: names, sizes, members, bombs."""

import io
import random
import struct
import warnings
import zipfile
import zlib

from . import odd

_NAMES = ("../outside", "/tmp/outside", "", "a\\b", "mean.npy", "x" * 300, "data.pkl", "dir/", "ü", "..")


def members(data: bytes) -> dict[str, bytes]:
    """Names and contents."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def packed(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members, several of one name among them."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


def edited(random: random.Random, data: bytes) -> tuple[bytes, str]:
    """One edit of the members."""
    entries = list(members(data).items())
    index = random.randrange(len(entries))
    name, content = entries[index]
    how = random.choice(
        ("drop", "rename", "twice", "swap", "extra", "content", "deflate", "encrypted", "symlink", "sizes",
            "bomb", "empty")
    )  # fmt: skip
    compression = zipfile.ZIP_STORED
    if how == "drop":
        del entries[index]
    elif how == "rename":
        entries[index] = random.choice(_NAMES), content
    elif how == "twice":
        entries.append((name, odd.edited(random, content, [data])[0] if content else b"x"))
    elif how == "swap":
        other = random.randrange(len(entries))
        entries[index], entries[other] = (name, entries[other][1]), (entries[other][0], content)
    elif how == "extra":
        entries.append((random.choice(_NAMES), random.randbytes(100)))
    elif how == "content":
        entries[index] = (
            name,
            odd.edited(random, content, [other for _, other in entries])[0] if content else b"x",
        )
    elif how == "deflate":
        compression = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif how == "empty":
        entries[index] = name, b""
    result = packed(entries, compression)
    if how == "encrypted":
        result = _in_directory(result, 8, struct.pack("<H", 1))
    elif how == "symlink":
        result = _in_directory(result, 38, struct.pack("<I", 0o120777 << 16))
    elif how == "sizes":
        size = random.choice((0, 1, 2**31, 2**32 - 2))
        result = _in_directory(result, random.choice((20, 24, 42)), struct.pack("<I", size))
    elif how == "bomb":
        result = bomb(name, content[: random.choice((0, 128))])
    return result, f"zip: {how} {name[:30]!r}"


def _in_directory(data: bytes, offset: int, new: bytes) -> bytes:
    """Overwrites a field of the first member in the central directory."""
    start = data.find(b"PK\x01\x02") + offset
    return data[:start] + new + data[start + len(new) :]


def bomb(name: str, head: bytes, size: int = 6 << 30) -> bytes:
    """An archive of a few megabytes whose one member is `size` zeros behind `head`; its checksum is wrong."""
    block = 1 << 22
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = begin + zeros * (size // block) + b"\x03\x00"
    encoded = name.encode()
    # The sizes do not fit 32 bits: the member says less, which readers of a stream do not mind.
    claimed = min(size + len(head), 2**32 - 2)
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 0, len(content), claimed, len(encoded), 0
    )
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 0, len(content), claimed, len(encoded), 0, 0, 0,
            0, 0, 0
    )  # fmt: skip
    directory = len(local) + len(encoded) + len(content)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + len(encoded), directory, 0)
    return local + encoded + content + central + encoded + end
