"""Reads files through libraries, and turns whatever they raise into one line that names the file."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.errors import UserError

LARGEST_JSON = 1 << 26  # bytes; a config has a few thousand
_LONGEST_REASON = 200  # characters


@contextlib.contextmanager
def explaining(path: str | Path, problem: str, advice: str = "") -> Iterator[None]:
    """Wraps a library's call that reads `path`: its errors become "path: problem (reason)advice".

    At debug verbosity, the log has the traceback.

    Raises:
      UserError: in place of any error raised inside; a `UserError` raised inside passes unchanged.
    """
    try:
        yield
    except UserError:
        raise
    # Damaged files make libraries raise errors of any type, RecursionError and MemoryError included: a list
    # of types is never complete. No code of ours belongs inside.
    except Exception as error:  # noqa: BLE001
        logging.debug("%s", path, exc_info=True)
        if isinstance(error, FileNotFoundError) and _names(error, path):
            gone = "a broken link" if Path(path).is_symlink() else "no such file"
            raise UserError(f"{shown(path)}: {gone}") from None
        if isinstance(error, PermissionError) and _names(error, path):
            raise UserError(f"{shown(path)}: no permission to read it") from None
        raise UserError(f"{shown(path)}: {problem} ({reason(error)}){advice}") from None


def _names(error: OSError, path: str | Path) -> bool:
    """Whether the error is about the path itself and not about a file inside it."""
    named = error.filename
    return named is None or Path(os.fsdecode(named)).absolute() == Path(path).absolute()


def reason(error: BaseException) -> str:
    """The reason of an error in one line: the system's words, or the first line of its message."""
    if isinstance(error, MemoryError) and not str(error):
        return "it takes more memory than there is"
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    # TensorStore's errors arrive wrapped in a bare Exception.
    told = error.__cause__ if type(error) is Exception and error.__cause__ else error
    # The system's words, or libsndfile's.
    words = getattr(told, "strerror", None) or getattr(told, "error_string", None) or str(told)
    lines = str(words).strip().splitlines() or [type(told).__name__]
    return one_line(lines[0].removeprefix("Error : ").rstrip(". ")[:_LONGEST_REASON])


def explained(error: Exception) -> str:
    """The reason of an unforeseen error, with its type unless it came from the operating system."""
    if isinstance(error, (OSError, MemoryError)):
        return reason(error)
    return f"{type(error).__name__}: {reason(error)}"


def exists(path: str | Path) -> bool:
    """Whether the file or folder exists; False for impossible names, for which `Path` raises."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, too many links, a zero byte
        return False


def one_line(message: str) -> str:
    """Escapes line breaks and other control characters of a message; file names may hold them."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message
    )


def shown(path: str | os.PathLike) -> str:
    """A path as one printable line; bytes that are not UTF-8 are escaped."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"))


def read_json(path: str | Path, what: str) -> Any:
    """Reads a JSON file; errors call it `what`, such as "config file".

    Raises:
      UserError: the file does not exist, is not a regular file, is not JSON, or is too large.
    """
    path = Path(path)
    with explaining(path, f"not a readable {what}"):
        if not exists(path):
            raise UserError(f"{path}: no such {what}")
        if not path.is_file():  # a pipe might block for ever, a device might never end
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise UserError(f"{path}: {kind}, not a {what}")
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(f"{path}: too large for a {what}")
        text = path.read_text(encoding="utf-8")
    return parse_json(text, path, "not a readable JSON file")


def parse_json(text: str, path: str | Path, problem: str) -> Any:
    """Parses JSON text that came from `path`; its errors become "path: problem (reason)"."""
    with explaining(path, problem):
        return json.loads(text)
