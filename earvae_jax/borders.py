"""Where files come in: whatever a library raises about one becomes one line that names it."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earvae_jax.errors import UserError

_LARGEST_JSON = 1 << 26  # bytes; a config has a few thousand
_LONGEST_REASON = 200  # characters


@contextlib.contextmanager
def explaining(path: str | Path, problem: str, advice: str = "") -> Iterator[None]:
    """For a call of a library that reads `path`: its errors become "path: problem (reason)advice".

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
        raise UserError(f"{path}: {problem} ({reason(error)}){advice}") from None


def reason(error: BaseException) -> str:
    """What an error says of itself, in one line: the system's words, or the first line of its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    # What TensorStore says arrives wrapped in a bare Exception.
    told = error.__cause__ if type(error) is Exception and error.__cause__ else error
    lines = str(told).strip().splitlines() or [type(told).__name__]
    return lines[0][:_LONGEST_REASON]


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
