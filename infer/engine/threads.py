"""Threads that read ahead of the computation and write behind it, and end with it."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
_END = object()
_POLL_SECONDS = 0.1  # how often a waiting thread checks whether it is still needed


class Abandoned(BaseException):
    """Raised in a writer whose result is no longer needed."""


def prefetched(
    sources: Iterable[Iterable[Item]], depth: int, *, threads: int = 1
) -> Generator[Item, None, None]:
    """Yields the items of all sources; threads make up to `depth` of them ahead.

    Each thread takes one source after the other, so with one thread everything comes in order. With more, the
    items of a source come in order, between those of others. Without any each item is made when it is asked
    for. An exception in a thread is raised here. Closing this generator ends the threads.
    """
    if not threads:
        yield from itertools.chain.from_iterable(sources)
        return
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()
    remaining, one_at_a_time = iter(sources), threading.Lock()

    def put(entry: tuple[Any, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def next_source() -> Iterable[Item] | None:
        with one_at_a_time:
            return next(remaining, None)

    def produce() -> None:
        try:
            while (source := next_source()) is not None:
                for item in source:
                    if not put((item, None)):
                        return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            put((_END, error))

    readers = [threading.Thread(target=produce, name=f"reader {n}", daemon=True) for n in range(threads)]
    for reader in readers:
        reader.start()
    running = threads
    try:
        while running:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                running -= 1
            else:
                yield item
    finally:
        stop.set()
        for reader in readers:
            reader.join()


class Writer(Generic[Item]):
    """Runs `write(items)` in a thread; the items are those given to `put` until `finish`.

    So `write` can be sequential code: it opens its file, loops over the items and closes the file. Its
    exception is kept in `error`.

    Args:
      at_once: whether the thread starts now; otherwise it starts at the second item, and without one there is
        no thread: `finish` calls `write`.
    """

    def __init__(self, write: Callable[[Iterator[Item]], None], *, depth: int = 4, at_once: bool = True):
        self.error: BaseException | None = None
        self._items: queue.Queue[Any] = queue.Queue(max(2, depth))  # without a thread, an item and the end
        self._write = write
        self._thread: threading.Thread | None = None
        if at_once:
            self._start()

    def put(self, item: Item) -> None:
        """Hands over an item; waits while the writer is behind. A failed writer discards it."""
        if self._thread is None and not self._items.empty():
            self._start()
        self._items.put(item)

    def finish(self) -> None:
        """Says that no more items come, and waits for the writer."""
        self._end(_END)

    def abandon(self) -> None:
        """Ends the writer with an exception, so that it leaves nothing behind."""
        self._end(Abandoned())

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def _end(self, last: Any) -> None:
        self._items.put(last)
        if self._thread is None:
            self._work()
        else:
            self._thread.join()

    def _work(self) -> None:
        items = self._iterate()
        try:
            self._write(items)
        except BaseException as error:  # noqa: BLE001 - kept for whoever asks
            self.error = error
        with contextlib.suppress(Abandoned):
            for _ in items:
                pass  # what the writer left unread must not block `put`

    def _iterate(self) -> Iterator[Item]:
        while True:
            item = self._items.get()
            if item is _END:
                return
            if isinstance(item, Abandoned):
                raise item
            yield item
