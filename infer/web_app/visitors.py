"""Visitors: what each open page keeps on disk, which goes when the page is closed, and whose turn it is."""

import collections
import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

from earvae_jax.errors import UserError
from earvae_jax.infer.latents import Latents

_FOLDER = "visitor-"
_UNCLAIMED_SECONDS = 600.0  # after which an upload belongs to no page: its tab was closed too early
_SWEEP_SECONDS = 60.0
_REMEMBERED = 10_000  # closed pages; the server forgets the oldest


class Visitor:
    """One open page.

    Attributes:
      folder: holds what was computed for it.
      uploads: its songs, which the server received.
      gone: set when the page was closed.
      latents: those of its two last songs, by what they were made of.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.uploads: set[Path] = set()
        self.gone = threading.Event()
        self.latents: collections.OrderedDict[object, Latents] = collections.OrderedDict()


class Visitors:
    """All open pages, by the names that the server gives them, and the folder that holds all of their files.

    Uploads lie in folders of their own under `folder`, named after their content: two visitors with the same
    song share it, and the last one takes it with him.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._open: dict[str, Visitor] = {}
        self._closed: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._sweep_on, name="sweeper", daemon=True).start()

    def visitor(self, name: str) -> Visitor:
        """The visitor of that name, who may be new.

        Raises:
          UserError: the page was closed, or lost its connection, and its files are deleted.
        """
        with self._lock:
            if name in self._closed or self._ended.is_set():
                raise UserError("the connection was lost, and the files of this page are deleted: reload it")
            if name not in self._open:
                # A name that a browser sends is no name for a folder.
                self._open[name] = Visitor(Path(tempfile.mkdtemp(prefix=_FOLDER, dir=self.folder)))
            return self._open[name]

    def claim(self, name: str, upload: str | Path) -> Path:
        """The path of an upload, which from now on goes when this visitor goes."""
        visitor, path = self.visitor(name), Path(upload)
        with self._lock:
            if path.parent.parent == self.folder:
                visitor.uploads.add(path)
        return path

    def leave(self, name: str) -> None:
        """Ends a visit: its computation stops, and its files are deleted."""
        with self._lock:
            visitor = self._open.pop(name, None)
            self._closed[name] = None
            if len(self._closed) > _REMEMBERED:
                self._closed.popitem(last=False)
            if visitor is None:
                return
            visitor.gone.set()
            _delete(visitor.folder)
            kept = self._claimed()
            for path in visitor.uploads:
                if path.parent not in kept:
                    _delete(path.parent)

    def sweep(self, older_than: float = _UNCLAIMED_SECONDS) -> None:
        """Deletes uploads that no page claimed within so many seconds."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            kept = self._claimed() | {visitor.folder for visitor in self._open.values()}
            for path in self.folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # the server renames an upload once it is whole
                    if path not in kept and time.time() - path.stat().st_mtime > older_than:
                        _delete(path)

    def close(self) -> None:
        """Ends all visits."""
        self._ended.set()
        for name in list(self._open):
            self.leave(name)
        _delete(self.folder)

    def _claimed(self) -> set[Path]:
        return {path.parent for visitor in self._open.values() for path in visitor.uploads}

    def _sweep_on(self) -> None:
        while not self._ended.wait(_SWEEP_SECONDS):
            self.sweep()


class Turns:
    """One computation at a time, in the order in which they were asked for."""

    def __init__(self, waiting: int):
        self._most = waiting
        self._tickets: list[Ticket] = []
        self._lock = threading.Lock()

    def join(self) -> "Ticket":
        """The end of the queue.

        Raises:
          UserError: too many wait already.
        """
        with self._lock:
            if len(self._tickets) > self._most:
                raise UserError(f"{self._most} visitors are waiting already: try again in a few minutes")
            ticket = Ticket(self)
            self._tickets.append(ticket)
            return ticket

    def before(self, ticket: "Ticket") -> int:
        """How many come first; 0 if it is this one's turn."""
        with self._lock:
            return self._tickets.index(ticket)

    def leave(self, ticket: "Ticket") -> None:
        """Lets the next one go on."""
        with self._lock, contextlib.suppress(ValueError):  # it left before
            self._tickets.remove(ticket)


class Ticket:
    """A place in the queue; whoever holds it must leave."""

    def __init__(self, turns: Turns):
        self._turns = turns

    @property
    def before(self) -> int:
        """How many come first."""
        return self._turns.before(self)

    def leave(self) -> None:
        """Gives the place up; leaving twice is allowed."""
        self._turns.leave(self)


def _delete(path: Path) -> None:
    # A thread that is just writing there may lay a file anew; the second try has it.
    for _ in range(2):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
