"""Writes scalars, pairs of audio and their spectrograms for TensorBoard."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.errors import require
from earvae_jax.signal import spectral

_LISTENED = 3  # pairs written at each validation
_RANGE_DB = 80.0  # of the spectrogram's grey values
_N_FFT = 1024
_FLUSH_SECONDS = 10.0


class Board:
    """Writes into `folder`; None writes nothing (in all processes but the first).

    A full or failing disk ends only the board, with one warning, and not the run. The board writes in the
    caller's thread, as the writer of tensorboardX blocks for ever after an error in its own thread.

    Args:
      after: the step after which a run continues; later steps of an earlier process no longer count.
    """

    def __init__(self, folder: Path | None, *, after: int | None = None):
        self._folder, self._flushed = folder, 0.0
        self._events: Any = None  # the writer of tensorboardX; None once nothing more is written
        if folder is None:
            return
        require("tensorboardX", extra="train")
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        with self._ending_at_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
            if after is not None:
                self._write(after + 1, session_log=SessionLog(status=SessionLog.START))
            self._events.flush()

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Adds one point to each curve."""
        if self._events is None:
            return
        from tensorboardX import summary

        with self._ending_at_errors():
            for name, value in values.items():
                self._write(step, summary=summary.scalar(f"{group}/{name}", value))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()

    def pairs(
        self,
        step: int,
        originals: Float[np.ndarray, "I T C"],
        reconstructions: Float[np.ndarray, "I T C"],
        sample_rate: int,
    ) -> None:
        """Adds the first few originals and reconstructions as audio and spectrograms."""
        if self._events is None:
            return
        from tensorboardX import summary

        with self._ending_at_errors():
            for place in range(min(_LISTENED, len(originals))):
                pair = {"original": originals[place], "reconstruction": reconstructions[place]}
                for kind, audio in pair.items():
                    name, heard = f"{place}_{kind}", np.nan_to_num(audio).clip(-1, 1)
                    self._write(step, summary=summary.audio(f"audio/{name}", heard, sample_rate))
                    picture = summary.image(f"spectrogram/{name}", spectrogram(heard), dataformats="HW")
                    self._write(step, summary=picture)
            self._events.flush()

    def close(self) -> None:
        """Writes what is buffered."""
        if self._events is not None:
            with self._ending_at_errors():
                self._events.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    @contextlib.contextmanager
    def _ending_at_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._events = None
            logging.warning(
                "%s: nothing more is written for TensorBoard (%s); training goes on",
                self._folder,
                error.strerror or error,
            )


def spectrogram(audio: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "F K"]:
    """Level of the mid channel in 0..1 over 80 dB, low frequencies at the bottom."""
    mid = jnp.mean(jnp.asarray(audio), axis=1, keepdims=True)[None]
    spectrum = spectral.stft(mid, n_fft=_N_FFT, hop_length=_N_FFT // 4)[0, 0]
    level = 20 * jnp.log10(spectral.magnitude(spectrum) / (_N_FFT / 4))  # 0 dB: a full-scale sine
    return np.asarray(jnp.clip(1 + level / _RANGE_DB, 0, 1)).T[::-1]
