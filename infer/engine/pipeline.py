"""From files to files: reading, encoding, the transformer, decoding and writing, all at once."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.resampling import Resampler
from earvae_jax.borders import explained
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.batching import Batcher
from earvae_jax.infer.engine.cutting import Cut
from earvae_jax.infer.engine.gathered import Gathered
from earvae_jax.infer.engine.threads import Writer, prefetched
from earvae_jax.infer.latents import Latents

if TYPE_CHECKING:
    from earvae_jax.infer.codec import Codec

_BLOCK = 1 << 16  # samples read at a time
_WINDOWS_AHEAD = 2
NOT_FINITE = "its samples take the model out of range: latents or output are not finite"


class Reader(Protocol):
    """What a task reads audio from: `AudioReader`, or an array."""

    sample_rate: int
    channels: int

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of audio: where it comes from and what is to be made of it.

    Attributes:
      name: goes into the latents, and seeds the noise where they are sampled.
      audio: opens the audio to encode, or
      latents: reads latents that exist already.
      keep: receives the latents.
      write: receives the decoded blocks at the original rate, as an iterator, in a thread of its own.
      latent: "mean", or "sample" with `seed`.
    """

    name: str
    audio: Callable[[], AbstractContextManager[Reader]] | None = None
    latents: Callable[[], Latents] | None = None
    keep: Callable[[Latents], None] | None = None
    write: Callable[[Iterator[Float[np.ndarray, "T C"]], Latents], None] | None = None
    latent: str = "mean"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class _End:
    """What is known of the audio when all of it has been read."""

    sample_rate: int
    samples: int
    channels: int


class Pipeline:
    """Runs tasks for a codec; see `Codec.run`."""

    def __init__(self, codec: "Codec", done: Callable[[int, UserError | None], None]):
        self._codec, self._done = codec, done
        self._encoder, self._decoder = codec.batchers()
        self._active: dict[int, _Progress] = {}

    def run(self, tasks: Iterable[Task]) -> None:
        """Runs all tasks to their end; on an exception nothing half-written is left."""
        events = prefetched(self._read(tasks), _WINDOWS_AHEAD)
        try:
            for number, task, event in events:
                if number not in self._active:
                    self._active[number] = _Progress(task, self._codec, self._decoder)
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

    def _read(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Task, Cut | _End | Latents | UserError]]:
        """Runs in the reading thread; opens one task after the other."""
        for number, task in enumerate(tasks):
            try:
                if task.latents is not None:
                    yield number, task, self._read_latents(task)
                else:
                    for event in self._read_audio(task):
                        yield number, task, event
            except UserError as error:
                yield number, task, error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is about this file alone
                logging.debug("%s", task.name, exc_info=True)
                yield number, task, UserError(explained(error))

    def _read_latents(self, task: Task) -> Latents:
        assert task.latents is not None
        return self._codec.accepted(task.latents())

    def _read_audio(self, task: Task) -> Iterator[Cut | _End]:
        config, rate = self._codec.config, self._codec.sample_rate
        assert task.audio is not None  # as it has no latents
        with task.audio() as reader:
            if reader.channels not in (1, config.io_channels):
                raise UserError(
                    f"{reader.channels} channels; the model takes {config.io_channels}: mix it down first"
                )
            samples = 0
            resampler = Resampler(reader.sample_rate, rate, reader.channels)

            def at_model_rate():
                nonlocal samples
                given = 0
                for block in reader.blocks(_BLOCK):
                    samples += len(block)
                    block = resampler(block)
                    given += len(block)
                    yield to_channels(block, config.io_channels)
                block = resampler(np.zeros((0, reader.channels), np.float32), last=True)
                yield to_channels(block, config.io_channels)
                if given + len(block) == 0:  # a few samples at a high rate are none at the model's
                    yield np.zeros((1, config.io_channels), np.float32)

            yield from self._codec.encoder_cuts(at_model_rate())
            yield _End(reader.sample_rate, samples, reader.channels)

    def _handle(self, progress: "_Progress", event: Cut | _End | Latents | UserError) -> None:
        if isinstance(event, Cut):
            progress.waiting += 1
            self._encoder.add(event, progress.accept_encoded)
        elif isinstance(event, _End):
            progress.end = event
        elif isinstance(event, Latents):
            progress.encoded = event
        else:
            progress.error = event

    def _settle(self) -> None:
        """Starts decoding what is encoded, and lets go of what is finished."""
        for number, progress in list(self._active.items()):
            progress.advance()
            if progress.finished:
                progress.close()
                del self._active[number]
                self._done(number, progress.error)


class _Progress:
    """How far one task is."""

    def __init__(self, task: Task, codec: "Codec", decoder: Batcher):
        self.task, self._codec, self._decoder = task, codec, decoder
        self.error: UserError | None = None
        self.end: _End | None = None
        self.encoded: Latents | None = None
        self.waiting = 0  # windows on their way
        self.finished = False
        self._mean, self._std = Gathered(), Gathered()
        self._decoded: dict[int, tuple[np.ndarray, int]] = {}  # windows that wait for one before them
        self._needs_std = task.keep is not None or task.latent == "sample"
        self._writer: Writer | None = None
        self._decoding = False
        self._written_to = 0  # latent up to which decoded audio went to the writer

    def advance(self) -> None:
        """Does what can be done now."""
        if self.error is None and self._writer is not None and self._writer.error is not None:
            self._fail(self._writer.error)
        if self.waiting:
            return
        if self.error is not None:
            self.finished = True
        elif self.end is not None and self.encoded is None:
            self.encoded = self._join()
            if not np.isfinite(self.encoded.mean).all():
                self._fail(UserError(NOT_FINITE))
                self.finished = True
        if self.encoded is None or self.finished:
            return
        if not self._decoding:
            self._decoding = True
            try:
                if self.task.keep is not None:
                    self.task.keep(self.encoded)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is about this file alone
                self._fail(error)
            try:
                if self.error is None and self.task.write is not None:
                    self._decode()
            except UserError as error:
                self._fail(error)
        self.finished = not self.waiting

    def accept_encoded(self, cut: Cut, result: tuple[np.ndarray, np.ndarray]) -> None:
        """Takes the latents of one window."""
        self.waiting -= 1
        window = cut.window
        kept = slice(window.keep_from - window.start, window.keep_to - window.start)
        if self.error is None:
            mean, std = result
            self._mean.put(window.keep_from, mean[kept])
            if self._needs_std:
                self._std.put(window.keep_from, std[kept])

    def close(self) -> None:
        """Waits for the writer."""
        if self._writer is not None:
            if self.error is None:
                self._writer.finish()
                if self._writer.error is not None:
                    self._fail(self._writer.error)
            else:
                self._writer.abandon()
            self._writer = None

    def abandon(self) -> None:
        """Leaves nothing half-written."""
        if self._writer is not None:
            self._writer.abandon()

    def _join(self) -> Latents:
        end = self.end
        assert end is not None
        return Latents(
            self._mean.take(),
            self._std.take() if self._needs_std else None,
            end.sample_rate,
            end.samples,
            end.channels,
            self._codec.model_fingerprint,
            self.task.name,
            model_name=self._codec.model_name,
        )

    def _take_values(self) -> Float[np.ndarray, "N D"]:
        """What is decoded; only the length, rate and channels of the audio are kept from here on."""
        latents = self.encoded
        assert latents is not None
        values = latents.mean
        if self.task.latent == "sample":
            if latents.std is None:
                raise UserError("there is no std to sample with: only the mean can be decoded")
            noise = self._codec.noise(values.shape, self.task.seed, latents.name)
            values = values + latents.std * noise
        nothing = np.zeros((0, values.shape[1]), np.float32)
        self.encoded = dataclasses.replace(latents, mean=nothing, std=nothing)
        return values

    def _decode(self) -> None:
        # Without a name here, so that `transform` can let go of the latents: an hour of them is 40 MB.
        values = self._codec.compiled.transform(self._take_values())
        latents, task_write = self.encoded, self.task.write
        assert latents is not None and task_write is not None

        def write(blocks: Iterator[np.ndarray]) -> None:
            task_write(self._codec.to_output(blocks, latents), latents)

        self._writer = Writer(write)
        for cut in self._codec.decoder_cuts(values):
            if self._writer.error is not None:
                break  # a full disk does not get better with the next window
            self.waiting += 1
            self._decoder.add(cut, self._accept_decoded)

    def _accept_decoded(self, cut: Cut, audio: Float[np.ndarray, "T C"]) -> None:
        self.waiting -= 1
        window, ratio = cut.window, self._codec.config.downsampling_ratio
        kept = audio[(window.keep_from - window.start) * ratio : (window.keep_to - window.start) * ratio]
        self._decoded[window.keep_from] = (kept.copy(), window.keep_to)
        while self._written_to in self._decoded:
            block, self._written_to = self._decoded.pop(self._written_to)
            assert self._writer is not None
            if self._writer.error is None:
                self._writer.put(block)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, UserError):
            logging.debug("%s", self.task.name, exc_info=error)
            error = UserError(explained(error))
        self.error = error
        self._decoded.clear()
