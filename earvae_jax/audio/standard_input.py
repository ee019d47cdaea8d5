"""Inputs that can be read only once, from their beginning to their end: standard input and pipes."""

import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO

from earvae_jax.borders import shown
from earvae_jax.errors import UserError

DASH = Path("-")
_NAMES = (DASH, Path("/dev/stdin"))


def is_standard_input(path: Path) -> bool:
    """Whether it is `-` or /dev/stdin."""
    return path in _NAMES


def is_once_only(path: Path) -> bool:
    """Whether the input can be read only once."""
    if path == DASH:
        return True
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def spooled(path: Path) -> IO[bytes]:
    """Copies the whole input to a temporary file, which disappears when it is closed.

    Raises:
      UserError: the input is a terminal, or another device that does not end.
    """
    if is_standard_input(path):
        if sys.stdin is None or sys.stdin.isatty():
            raise UserError(f"{path}: standard input is a terminal; send a file to it: earvae … - < FILE")
        return _copied(sys.stdin.buffer)
    if stat.S_ISCHR(path.stat().st_mode) and path != Path("/dev/null"):
        raise UserError(f"{shown(path)}: is a device, not an audio file")
    with path.open("rb") as source:
        return _copied(source)


def _copied(source: IO[bytes]) -> IO[bytes]:
    copy = tempfile.NamedTemporaryFile(prefix="earvae-input-")  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(source, copy, 1 << 20)
    copy.flush()
    return copy
