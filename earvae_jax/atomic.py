"""Writing files and folders so that nothing half-written ever stands under a final name."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".partial"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed to it when the block ends well and removed when not.

    Parent folders are made. What a killed process left behind for the same name is removed; a process still
    running, here or on another host, keeps its own temporary.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{_SUFFIX}")
    remove(temporary)
    try:
        yield temporary
        _rename(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    # A rename cannot replace a folder that holds something: move that aside first.
    old = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.old{_SUFFIX}")
    path.rename(old)
    temporary.replace(path)
    shutil.rmtree(old)


def _remove_abandoned(path: Path) -> None:
    prefix = f".{path.name}.{socket.gethostname()}-"
    for found in path.parent.glob(f".{_escaped(path.name)}.*{_SUFFIX}"):
        process = found.name.removeprefix(prefix).removesuffix(_SUFFIX)
        if process.isdecimal() and not _is_running(int(process)):
            remove(found)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
