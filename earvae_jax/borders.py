"""Where files come in: whatever a library raises about one becomes one line that names it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.errors import UserError

_LARGEST_JSON = 1 << 26  # bytes; a config has a few thousand
_LONGEST_REASON = 200  # characters


@contextlib.contextmanager
def explaining(path: str | Path, problem: str, advice: str = "") -> Iterator[None]:
    """For a call of a library that reads `path`: its errors become "path: problem (reason)advice".

    With the verbosity at debug the log has the traceback.

    Raises:
      UserError: instead of any other error; one raised inside passes.
    """
    try:
        yield
    except UserError:
        raise
    # Libraries show damage by whatever their parts raise, of any type, recursion and memory included; a list
    # of types is never complete. Nothing of ours belongs inside.
    except Exception as error:  # noqa: BLE001
        logging.debug("%s", path, exc_info=True)
        if isinstance(error, FileNotFoundError) and _names(error, path):
            gone = "a broken link" if Path(path).is_symlink() else "no such file"
            raise UserError(f"{shown(path)}: {gone}") from None
        if isinstance(error, PermissionError) and _names(error, path):
            raise UserError(f"{shown(path)}: no permission to read it") from None
        raise UserError(f"{shown(path)}: {problem} ({reason(error)}){advice}") from None


def _names(error: OSError, path: str | Path) -> bool:
    """Whether it is about the path itself and not about a part of it."""
    named = error.filename
    return named is None or Path(os.fsdecode(named)).absolute() == Path(path).absolute()


def reason(error: BaseException) -> str:
    """What an error says of itself, in one line: the system's words, or the first line of its own."""
    if isinstance(error, MemoryError) and not str(error):
        return "it takes more memory than there is"
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    # What TensorStore says arrives wrapped in a bare Exception.
    told = error.__cause__ if type(error) is Exception and error.__cause__ else error
    # The system's words, or libsndfile's.
    words = getattr(told, "strerror", None) or getattr(told, "error_string", None) or str(told)
    lines = str(words).strip().splitlines() or [type(told).__name__]
    return one_line(lines[0].removeprefix("Error : ").rstrip(". ")[:_LONGEST_REASON])


def explained(error: Exception) -> str:
    """An error that nobody foresaw, with its kind where the system does not speak."""
    if isinstance(error, (OSError, MemoryError)):
        return reason(error)
    return f"{type(error).__name__}: {reason(error)}"


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; False for names that none can have, where `Path` raises."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, too many links, a zero byte
        return False


def one_line(message: str) -> str:
    """A message with its line breaks and other control characters, which names may hold, written out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message
    )


def shown(path: str | os.PathLike) -> str:
    """A name as a line of text can hold it, bytes that are no UTF-8 included."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"))


def read_json(path: str | Path, what: str) -> Any:
    """The content of a JSON file; `what` it is stands in the errors, such as "config file".

    Raises:
      UserError: no such file, no regular file, no JSON, or more of it than such a file can hold.
    """
    path = Path(path)
    with explaining(path, f"not a readable {what}"):
        if not exists(path):
            raise UserError(f"{path}: no such {what}")
        if not path.is_file():  # a pipe might wait for ever, a device never end
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise UserError(f"{path}: {kind}, not a {what}")
        if path.stat().st_size > _LARGEST_JSON:
            raise UserError(f"{path}: too large for a {what}")
        text = path.read_text(encoding="utf-8")
    return parse_json(text, path, "not a readable JSON file")


def parse_json(text: str, path: str | Path, problem: str) -> Any:
    """The value of JSON text that came out of `path`; where it is none, "path: problem (reason)"."""
    with explaining(path, problem):
        return json.loads(text)
