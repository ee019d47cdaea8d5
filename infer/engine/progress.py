"""The progress of one task: its windows as they come back, its latents, its writer."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.borders import explained
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.batching import Batcher
from earvae_jax.infer.engine.cutting import Cut
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.gathered import Gathered
from earvae_jax.infer.engine.noise import standard_normal
from earvae_jax.infer.engine.rates import NOT_FINITE, at_original_rate
from earvae_jax.infer.engine.task import Half, Task
from earvae_jax.infer.engine.threads import Writer
from earvae_jax.infer.latents import Latents


@dataclasses.dataclass(frozen=True)
class End:
    """What is known about audio once all of it has been read."""

    sample_rate: int
    samples: int
    channels: int


class Progress:
    """One running task; `advance` takes the next steps that are possible."""

    def __init__(self, task: Task, engine: Engine, decoder: Batcher):
        self.task, self._engine, self._decoder = task, engine, decoder
        self.error: UserError | None = None
        self.end: End | None = None
        self.encoded: Latents | None = None
        self.waiting = 0  # windows that are being computed
        self.finished = False
        self._mean, self._std = Gathered(), Gathered()
        self._decoded: dict[int, tuple[np.ndarray, int]] = {}  # windows that wait for an earlier one
        self._needs_std = task.keep is not None or task.latent == "sample"
        self._writer: Writer | None = None
        self._decoding = False
        self._written_to = 0  # latent up to which decoded audio went to the writer

    def advance(self) -> None:
        """Takes the next steps that are possible now."""
        if self.error is None and self._writer is not None and self._writer.error is not None:
            self._fail(self._writer.error)
        if self.waiting:
            return
        if self.error is not None:
            self.finished = True
        elif self.end is not None and self.encoded is None:
            self.encoded = self._join(self.end)
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
            except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this file only
                self._fail(error)
            try:
                if self.error is None and self.task.write is not None:
                    self._decode(self.task.write)
            except UserError as error:
                self._fail(error)
        self.finished = not self.waiting

    def accept_encoded(self, cut: Cut, result: Any) -> None:
        """Takes the latents of one window."""
        self.waiting -= 1
        window = cut.window
        kept = slice(window.keep_from - window.start, window.keep_to - window.start)
        if self.error is None:
            mean, std = result
            self._mean.put(window.keep_from, mean[kept])
            if self._needs_std:
                self._std.put(window.keep_from, std[kept])
            self._tell("encoder", window.keep_to)

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
        """Stops the writer, which leaves nothing half-written."""
        if self._writer is not None:
            self._writer.abandon()

    def _join(self, end: End) -> Latents:
        return Latents(
            self._mean.take(),
            self._std.take() if self._needs_std else None,
            end.sample_rate,
            end.samples,
            end.channels,
            self._engine.fingerprint,
            self.task.name,
            model_name=self._engine.name,
        )

    def _take_values(self) -> Float[np.ndarray, "N D"]:
        """Hands over the latents to decode; of the audio only length, rate and channels are kept."""
        latents = self.encoded
        assert latents is not None
        values = latents.mean
        if self.task.latent == "sample":
            if latents.std is None:
                raise UserError("there is no std to sample with: only the mean can be decoded")
            noise = standard_normal(*values.shape, seed=self.task.seed, name=latents.name)
            values = values + latents.std * noise
        nothing = np.zeros((0, values.shape[1]), np.float32)
        self.encoded = dataclasses.replace(latents, mean=nothing, std=nothing)
        return values

    def _decode(self, write_blocks: Callable[[Iterator[np.ndarray], Latents], None]) -> None:
        # No variable here holds the latents, so that `transform` can free them: an hour of them is 40 MB.
        values = self._engine.compiled.transform(self._take_values())
        latents = self.encoded
        assert latents is not None

        def write(blocks: Iterator[np.ndarray]) -> None:
            write_blocks(at_original_rate(blocks, latents, self._engine.sample_rate), latents)

        self._writer = Writer(write, at_once=not self.task.in_memory)
        for cut in self._engine.decoder_windows(values):
            if self._writer.error is not None:
                break  # a full disk does not get better with the next window
            self.waiting += 1
            self._decoder.add(cut, self._accept_decoded)

    def _accept_decoded(self, cut: Cut, audio: Float[np.ndarray, "T C"]) -> None:
        self.waiting -= 1
        window, ratio = cut.window, self._engine.config.downsampling_ratio
        kept = audio[(window.keep_from - window.start) * ratio : (window.keep_to - window.start) * ratio]
        self._decoded[window.keep_from] = (kept, window.keep_to)
        while self._written_to in self._decoded:
            block, self._written_to = self._decoded.pop(self._written_to)
            assert self._writer is not None  # it was there before the first window
            if self._writer.error is None:
                self._writer.put(block)
                self._tell("decoder", self._written_to)

    def _tell(self, half: Half, latent: int) -> None:
        if self.task.watch is not None:
            self.task.watch(half, latent)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, UserError):
            logging.debug("%s", self.task.name, exc_info=error)
            error = UserError(explained(error))
        self.error = error
        self._decoded.clear()
