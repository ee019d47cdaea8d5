"""Keeps two runs from writing shards into one folder at a time, where the system can lock files."""

import os
from pathlib import Path

from earvae_jax.borders import shown
from earvae_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class ProcessLock:
    """Held by process `process` of `processes` while it writes; a kill releases it.

    The processes of one run hold locks of different names. Two runs of as many processes collide in the name,
    and a run of another number is seen by the number in the name. A folder that cannot lock is not guarded.

    Raises:
      UserError: another run holds a lock of the folder.
    """

    def __init__(self, folder: Path, process: int, processes: int):
        self._path = folder / f".process-{process:03}-of-{processes:03}.lock"
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = self._taken(self._path)
        if self._descriptor is None:
            return
        for other in sorted(folder.glob(".process-*-of-*.lock")):
            if not other.name.endswith(f"-of-{processes:03}.lock"):
                try:
                    theirs = self._taken(other)
                except UserError:
                    self.release()
                    raise
                if theirs is not None:  # its process is dead
                    other.unlink(missing_ok=True)
                    os.close(theirs)

    def release(self) -> None:
        """Removes the lock."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self):
        if self._descriptor is not None:
            os.close(self._descriptor)

    @staticmethod
    def _taken(path: Path) -> int | None:
        """The descriptor of a file that is now locked; None if this folder cannot lock."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed it meanwhile; then the name is another file's.
                if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                name = path.stem.removeprefix(".")
                raise UserError(
                    f"{shown(path.parent)}: another run ({name}) is writing here: wait until it has ended"
                ) from None
            except OSError:
                os.close(descriptor)
                return None
            os.close(descriptor)
