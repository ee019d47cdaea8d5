"""What a case must leave alone: the files around its output folder, the rest of the disk, other programs."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .cases.pickles import PAYLOAD
from .outcomes import FaultError

_PROGRAMS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """Listens to what Python is asked to open, change and start; a hook of a process cannot be taken away."""

    def __init__(self):
        self._seen: list[tuple[str, str]] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        seen = self._seen
        if seen is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITING:
                seen.append((event, _absolute(path)))
        elif event in _PROGRAMS:
            seen.append((event, str(arguments)[:200]))
        elif event in _CHANGES:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    seen.append((event, _absolute(path)))

    @contextlib.contextmanager
    def watching(
        self, case: Path, output: Path, elsewhere: tuple[Path, ...], *, free: bool
    ) -> Iterator[None]:
        """The fault of what happens inside beyond `output`, or, where `free`, beyond the `case` folder.

        Args:
          elsewhere: folders that the project keeps for itself, such as that of compiled programs.
          free: the case itself names outputs anywhere in its folder.
        """
        before = {} if free else _listing(case, output)
        self._seen = seen = []
        try:
            yield
        finally:
            self._seen = None
        if (case / PAYLOAD).exists() or any(path.name == PAYLOAD for path in case.rglob("*")):
            raise FaultError("payload: code of a file was run")
        for event, what in seen:
            if event in _PROGRAMS:
                raise FaultError(f"payload: {event}", what)
            allowed = (case, *elsewhere, Path("/dev"), Path("/proc"))
            if not any(Path(what).is_relative_to(place) for place in allowed):
                raise FaultError(f"escape: {event} outside the case's folder", what)
        after = before if free else _listing(case, output)
        if after != before:
            changed = sorted(
                name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
            )
            raise FaultError(
                "escape: files outside the output folder are made or changed", ", ".join(changed)
            )


def _absolute(path: str | bytes) -> str:
    # Not resolved: that would ask the disk, of a path that may hold anything.
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


def _listing(case: Path, output: Path) -> dict[str, tuple]:
    found = {}
    for folder, names, files in os.walk(case):
        if Path(folder) == output:
            names.clear()
            continue
        for name in [*names, *files]:
            path = Path(folder) / name
            if path != output:
                about = path.lstat()
                times = () if path.is_dir() and not path.is_symlink() else (about.st_size, about.st_mtime_ns)
                found[str(path.relative_to(case))] = (about.st_mode, *times)
    return found
