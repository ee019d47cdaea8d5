"""TensorBoard: scalars, pairs of audio and their spectrograms."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from earvae_jax import spectral
from earvae_jax.errors import require

_LISTENED = 3  # pairs written at each validation
_RANGE_DB = 80.0  # of the spectrogram's grey values
_N_FFT = 1024


class Board:
    """Writes `workdir/tensorboard`; `None` as the folder writes nothing (processes but the first)."""

    def __init__(self, folder: Path | None):
        self._writer = None
        if folder is not None:
            self._writer = require("tensorboardX", extra="train").SummaryWriter(str(folder))

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def pairs(
        self,
        step: int,
        originals: Float[np.ndarray, "I T C"],
        reconstructions: Float[np.ndarray, "I T C"],
        sample_rate: int,
    ) -> None:
        """Original and reconstruction of the first few crops, to hear and to see."""
        if self._writer is None:
            return
        for place in range(min(_LISTENED, len(originals))):
            for kind, audio in (("original", originals[place]), ("reconstruction", reconstructions[place])):
                self._writer.add_audio(f"audio/{place}_{kind}", audio.clip(-1, 1), step, sample_rate)
                self._writer.add_image(
                    f"spectrogram/{place}_{kind}", spectrogram(audio), step, dataformats="HW"
                )
        self._writer.flush()

    def close(self) -> None:
        """Writes what is buffered."""
        if self._writer is not None:
            self._writer.close()


def spectrogram(audio: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "F K"]:
    """Level of the mid channel in 0..1 over 80 dB, low frequencies at the bottom."""
    mid = jnp.mean(jnp.asarray(audio), axis=1, keepdims=True)[None]
    spectrum = spectral.stft(mid, n_fft=_N_FFT, hop_length=_N_FFT // 4)[0, 0]
    level = 20 * jnp.log10(spectral.magnitude(spectrum) / (_N_FFT / 4))  # 0 dB: a full-scale sine
    return np.asarray(jnp.clip(1 + level / _RANGE_DB, 0, 1)).T[::-1]
