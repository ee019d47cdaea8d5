"""The folder of a run: it has to exist, to be writable, and to serve one run at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from earvae_jax.errors import UserError

_LOCK = "lock"
# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def claim(workdir: Path) -> IO[str]:
    """Makes the folder and locks it until the returned file is closed or the process ends.

    Raises:
      UserError: it cannot be written to, or another run holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((workdir / _LOCK).open("a+", encoding="utf-8"))
            _lock(lock)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{workdir}: another run is training here ({lock.read() or 'unknown process'}); "
                "end it, or choose another --workdir"
            ) from None
        except OSError as error:
            raise UserError(
                f"{workdir}: not a folder that can be written to ({error.strerror or error}); "
                "choose another --workdir"
            ) from None
        stack.pop_all()
        return lock


def _lock(file: IO[str]) -> None:
    """Locks a file; the system frees the lock when the process ends, however it ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
