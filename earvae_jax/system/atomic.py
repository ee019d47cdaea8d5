"""Writes files and folders so that nothing half-written ever has a final name."""

import contextlib
import functools
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".partial"
_OLD = f".old{_SUFFIX}"
_USUAL_LONGEST = 255  # bytes of a name, where the system does not say


@contextlib.contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it is renamed to `path` if the block succeeds, else removed.

    With `durable`, the content is on the disk before the name is, and the name when this returns, so that a
    power failure takes neither; that is for a file, not a folder. Parent folders are made. Temporary files
    that a killed process left for the same name are removed; those of a process that still runs, or of
    another host, are kept. `path` may have the longest name allowed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = _beside(path, _SUFFIX)
    remove(temporary)
    try:
        yield temporary
        if durable:
            _flush(temporary)
        _rename(temporary, path)
        if durable:
            _flush(path.parent)
    finally:
        remove(temporary)


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes of this host were writing in a folder, whatever its name was to be."""
    for entry in list(os.scandir(folder)):
        process = entry.name.removesuffix(_SUFFIX).rpartition(f".{socket.gethostname()}-")[2]
        ours = entry.name.startswith(".") and entry.name.endswith(_SUFFIX) and process.isdecimal()
        if ours and not _is_running(int(process)):
            remove(Path(entry.path))


def remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's names where the system offers that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network folders refuse
            raise
    finally:
        os.close(descriptor)


def _rename(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    # A rename cannot replace a folder that holds something: move that aside first.
    old = _beside(path, _OLD)
    path.rename(old)
    temporary.replace(path)
    shutil.rmtree(old)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{_prefix(path)}{os.getpid()}{suffix}")


def _prefix(path: Path) -> str:
    """How the names of this host's temporary files for `path` begin; they are no longer than allowed."""
    rest = f".{socket.gethostname()}-"
    room = _longest(path.parent) - len(rest.encode()) - len(f".{2**22}{_OLD}")
    name = os.fsencode(path.name)
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = f"{name[: max(0, room - 17)].decode(errors='ignore')}~{digest}".encode()
    return f".{os.fsdecode(name)}{rest}"


def _longest(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _USUAL_LONGEST


def _remove_abandoned(path: Path) -> None:
    prefix = _prefix(path)
    for name in _left_behind(path.parent.resolve()):
        if name.startswith(prefix):
            process = name.removeprefix(prefix).removesuffix(_SUFFIX)
            if process.isdecimal() and not _is_running(int(process)):
                remove(path.with_name(name))


@functools.lru_cache(maxsize=1024)
def _left_behind(folder: Path) -> list[str]:
    """The temporary files that were in a folder when this process first wrote there.

    A folder can hold a hundred thousand outputs: listing it for each of them would take hours.
    """
    return [
        entry.name
        for entry in os.scandir(folder)
        if entry.name.startswith(".") and entry.name.endswith(_SUFFIX)
    ]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
