"""Whole songs, reconstructed and measured while a run goes on, as its users would hear them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.reader import read
from earvae_jax.audio.resampling import resample
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.model.vae import EarVAE
from earvae_jax.signal.metrics import NAMES, evaluate_pair
from earvae_jax.train.data.recordings import find


class Songs:
    """The songs of `data.songs`; without any it measures nothing.

    Raises:
      UserError: a place does not exist or holds no audio.
    """

    def __init__(self, places: Sequence[str], sample_rate: int):
        self._paths = [each.path for each in find(tuple(places), "data.songs")] if places else []
        self._sample_rate = sample_rate

    def __bool__(self) -> bool:
        return bool(self._paths)

    def measure(self, model: EarVAE) -> dict[str, dict[str, float]]:
        """The metrics of each song by its name, as `earvae evaluate` gives them at the model's rate.

        Songs are reconstructed from the mean latents in exact windows, one at a time. A song that cannot be
        read is left out with a warning.
        """
        codec = Codec(model, sample_rate=self._sample_rate, devices=jax.local_devices()[:1])
        found: dict[str, dict[str, float]] = {}
        for path in self._paths:
            try:
                audio, rate = read(path)
                stereo = to_channels(audio, model.config.io_channels)
                song = resample(stereo, rate, self._sample_rate) if rate != self._sample_rate else stereo
                made = codec.reconstruct(song)
            except UserError as error:
                logging.warning("data.songs: %s: left out: %s", shown(path), error)
                continue
            metrics = evaluate_pair(song, np.asarray(made), self._sample_rate)
            found[_name(path, found)] = {
                name: float(value) for name in NAMES if (value := metrics[name]) is not None
            }
        return found


def song_means(songs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the songs for which it is defined."""
    columns = {name: [values[name] for values in songs.values() if name in values] for name in NAMES}
    return {name: float(np.mean(values)) for name, values in columns.items() if values}


def _name(path: Path, taken: Mapping[str, object]) -> str:
    """The file's name, with its folder if another song has it."""
    return path.name if path.name not in taken else f"{path.parent.name}/{path.name}"
