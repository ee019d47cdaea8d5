"""Takes files to files: reading, encoding, the transformer, decoding and writing run at the same time."""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import logging

from earvae_jax.borders import explained
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.cutting import Cut
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.progress import End, Progress
from earvae_jax.infer.engine.rates import AtModelRate
from earvae_jax.infer.engine.task import Task
from earvae_jax.infer.engine.threads import prefetched
from earvae_jax.infer.latents import Latents


class Pipeline:
    """Runs tasks on an engine; see `Codec.run`."""

    def __init__(self, engine: Engine, done: Callable[[int, UserError | None], None]):
        self._engine, self._done = engine, done
        self._encoder, self._decoder = engine.batchers()
        self._active: dict[int, Progress] = {}

    def run(self, tasks: Iterable[Task]) -> None:
        """Runs all tasks to their end; an exception leaves no half-written file."""
        in_memory = isinstance(tasks, Sequence) and all(task.in_memory for task in tasks)
        most = 0 if in_memory else self._engine.readers
        readers = min(most, operator.length_hint(tasks, most))
        sources = itertools.starmap(self._read, enumerate(tasks))
        events = prefetched(sources, self._engine.windows_ahead, threads=readers)
        try:
            for number, task, event in events:
                if number not in self._active:
                    self._active[number] = Progress(task, self._engine, self._decoder)
                self._handle(self._active[number], event)
                self._settle()
            self._encoder.flush()
            self._settle()
            self._decoder.flush()
            self._settle()
        finally:
            events.close()
            for progress in self._active.values():
                progress.abandon()

    def _read(self, number: int, task: Task) -> Iterator[tuple[int, Task, Cut | End | Latents | UserError]]:
        """What one task has to be computed; runs in a reading thread."""
        try:
            if task.latents is not None:
                yield number, task, self._engine.accepted(task.latents(), task.name)
            else:
                for event in self._read_audio(task):
                    yield number, task, event
        except UserError as error:
            yield number, task, error
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this file only
            logging.debug("%s", task.name, exc_info=True)
            yield number, task, UserError(explained(error))

    def _read_audio(self, task: Task) -> Iterator[Cut | End]:
        assert task.audio is not None  # a task without latents has audio
        with task.audio() as reader:
            audio = AtModelRate(reader, self._engine.sample_rate, self._engine.config.io_channels)
            yield from self._engine.encoder_windows(audio)
            yield End(reader.sample_rate, audio.samples, reader.channels)

    def _handle(self, progress: Progress, event: Cut | End | Latents | UserError) -> None:
        if isinstance(event, Cut):
            progress.waiting += 1
            self._encoder.add(event, progress.accept_encoded)
        elif isinstance(event, End):
            progress.end = event
        elif isinstance(event, Latents):
            progress.encoded = event
        else:
            progress.error = event

    def _settle(self) -> None:
        """Starts to decode the tasks that are encoded, and removes the finished ones."""
        for number, progress in list(self._active.items()):
            progress.advance()
            if progress.finished:
                progress.close()
                del self._active[number]
                self._done(number, progress.error)
