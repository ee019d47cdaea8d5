"""Errors meant for the person who runs the program, and optional dependencies."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from absl import logging


class UserError(ValueError):
    """Something the user can put right: one line saying which file, what is wrong and what to do.

    The command line prints the message without a traceback.
    """


def shown(path: str | os.PathLike) -> str:
    """A name as a line of text can hold it: control characters and bytes that are no UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def reason(error: BaseException) -> str:
    """What an exception of a library says, as part of one line."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    lines = str(text).strip().splitlines() or [type(error).__name__]
    return shown(lines[0].strip().removeprefix("Error : ").rstrip(".")[:300])


@contextlib.contextmanager
def about(path: str | os.PathLike, what: str = "not readable") -> Iterator[None]:
    """The border to the libraries that read files: whatever they raise becomes one line about the file.

    Files decide which of a library's errors comes up, so no list of them could be complete. With the
    verbosity at debug the log has the traceback.

    Raises:
      UserError: "path: what: reason" instead of any exception; one of its kind passes.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        gone = "a broken link" if Path(path).is_symlink() else "no such file"
        raise UserError(f"{shown(path)}: {gone}") from None
    except PermissionError:
        raise UserError(f"{shown(path)}: no permission to read it") from None
    except Exception as error:  # noqa: BLE001 - see above
        logging.debug("%s", shown(path), exc_info=True)
        raise UserError(f"{shown(path)}: {what}: {explained(error)}") from None


def explained(error: Exception) -> str:
    """An exception that nobody foresaw, as part of one line."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {reason(error)}"


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional dependency, or raises a `UserError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0]
        raise UserError(
            f"this needs {package}, which is not installed; run: pip install 'earvae-jax[{extra}]'"
        ) from None
