"""A job: one computation for a visitor, in a thread of its own, which ends when the page is closed."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator

from absl import logging

from earvae_jax.borders import explained
from earvae_jax.errors import UserError
from earvae_jax.infer.web_app.visitors import Ticket, Turns, Visitor

_THREAD = "earvae demo job"
_SECONDS = 0.25  # between two looks at a job


class Cancelled(Exception):  # noqa: N818 - it is no error
    """Nobody waits for this job any more."""


class Job:
    """What is known about a computation while it runs; a subclass says what it computes in `run`.

    Attributes:
      stage: what it does now, in words.
      share: how much of that is done, 0 … 1; None if that is not known.
    """

    def __init__(self, visitor: Visitor):
        self.visitor = visitor
        self.stage, self.share = "Waiting", None  # type: tuple[str, float | None]
        self.error: UserError | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        """Computes."""
        raise NotImplementedError

    def at(self, stage: str, share: float | None = None) -> None:
        """Says how far the job is.

        Raises:
          Cancelled: the page was closed.
        """
        if self.stopped.is_set() or self.visitor.gone.is_set():
            raise Cancelled
        self.stage, self.share = stage, share if share is None else min(max(share, 0.0), 1.0)

    def work(self, ticket: Ticket) -> None:
        """Runs in a thread and then gives the turn to the next one."""
        try:
            self.run()
        except Cancelled:
            logging.debug("a page was closed: its computation ends")
        except UserError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the server
            logging.error("a page's computation failed: %s", explained(error))
            logging.debug("", exc_info=True)
            self.error = UserError(f"{explained(error)} (unforeseen; the server's log says more)")
        finally:
            ticket.leave()


def wait_for_jobs(seconds: float) -> bool:
    """Whether all jobs of this process ended within so many seconds."""
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.name == _THREAD for thread in threading.enumerate())


async def followed(job: Job, turns: Turns) -> AsyncGenerator[None, None]:
    """Waits for the job's turn and runs it; yields whenever the page should be drawn anew.

    Closing this generator, or the page, ends the job.

    Raises:
      UserError: the job failed, or too many others wait.
    """
    ticket = turns.join()
    thread = None
    try:
        while before := ticket.before:
            others = "another song is" if before == 1 else f"{before} other songs are"
            job.stage = f"Waiting: {others} before this one"
            yield
            await asyncio.sleep(_SECONDS)
        job.stage = "Starting"
        thread = threading.Thread(target=job.work, args=(ticket,), name=_THREAD, daemon=True)
        thread.start()
        while thread.is_alive():
            yield
            await asyncio.sleep(_SECONDS)
    finally:
        job.stopped.set()
        if thread is None:
            ticket.leave()
    if job.error is not None:
        raise job.error
    if job.visitor.gone.is_set():
        raise UserError("the page was closed")
