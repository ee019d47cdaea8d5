"""Crops of a collection of latents, to train a generative model on: a Grain source, and batches from it."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError, require
from earvae_jax.infer.latent_sets.collection import LatentSet, open_latents
from earvae_jax.infer.latent_sets.statistics import Statistics

if TYPE_CHECKING:
    import grain

__all__ = ["LatentCrops", "LatentSet", "latent_batches", "open_latents"]

_ENDLESS = 1 << 40  # crops; Grain wants a length
_EPOCHS_KEPT = 2  # orders; threads that read ahead are in the next epoch already

Place = str | os.PathLike[str]


class LatentCrops:
    """Crops at random places of random items: a source for Grain, and a data set for torch.

    An epoch has as many crops of each item as fit into it, at least one, in a new order each time. The number
    of a crop, from 0 without an end, and the seed alone decide its item, its place and its noise. A crop has

      latents: float32 [length, D], normalised, zero where the item has ended
      mask: bool [length], where the item has latents
      file: name of the audio file
      start: place of the crop in the item, in latents
      start_seconds, seconds: the same in seconds, and the length of the audio
      sample_rate, channels: of the audio

    Args:
      latents: a `LatentSet`, or the folders and files that `open_latents` takes.
      length: latents in a crop.
      seed: of order, places and noise.
      sample: whether to draw from the posterior, anew for each crop, in place of its mean.
      normalize: whether to bring each dimension to mean 0 and deviation 1, by the statistics of means or of
        samples, whichever are drawn.
      statistics: those to normalise by; default: of `latents`, for which single files are all read once.

    Raises:
      UserError: the latents cannot be opened, have no std to sample with, or `length` is below 1.
    """

    def __init__(
        self,
        latents: LatentSet | Place | Sequence[Place],
        length: int,
        *,
        seed: int = 0,
        sample: bool = False,
        normalize: bool = True,
        statistics: Statistics | None = None,
    ):
        if length < 1:
            raise UserError(f"length={length}: a crop has at least one latent")
        self.latents = latents if isinstance(latents, LatentSet) else open_latents(latents)
        if sample and not self.latents.has_std:
            raise UserError("there is no std to sample with: encode with --latents mean+std, or sample=False")
        self.length, self.seed, self.sample = length, seed, sample
        self._offset = np.zeros(self.latents.dim, np.float32)
        self._scale = np.ones(self.latents.dim, np.float32)
        if normalize:
            found = statistics or self.latents.statistics()
            deviation = found.sampled_deviation if sample else found.deviation
            if deviation is None:
                raise UserError("the statistics know no std: sampled latents cannot be normalised by them")
            self._offset = found.mean.astype(np.float32)
            # A dimension that never changes stays as it is.
            self._scale = np.where(deviation > 0, deviation, 1).astype(np.float32)
        counts = [max(1, item.latents // length) for item in self.latents.items]
        self._items = np.repeat(np.arange(len(counts)), counts)
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Crops in an epoch."""
        return len(self._items)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Crop `number`; numbers from `len` on belong to later epochs."""
        epoch, place = divmod(int(number), len(self._items))
        if epoch < 0:
            raise IndexError(f"crop {number}: they are counted from 0")
        index = int(self._items[self._order(epoch)[place]])
        item = self.latents.items[index]
        random = np.random.default_rng((self.seed, 1, number))
        start = int(random.integers(max(1, item.latents - self.length + 1)))
        mean, std = self.latents.read(index, start, start + self.length)
        if self.sample:
            assert std is not None  # all items have one
            mean = mean + std * random.standard_normal(mean.shape, np.float32)
        latents = np.zeros((self.length, self.latents.dim), np.float32)
        latents[: len(mean)] = (mean - self._offset) / self._scale
        return {
            "latents": latents,
            "mask": np.arange(self.length) < len(mean),
            "file": item.file,
            "start": start,
            "start_seconds": start * item.seconds / item.latents,
            "seconds": item.seconds,
            "sample_rate": item.sample_rate,
            "channels": item.channels,
        }

    def restored(self, values: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
        """Latents as a `Codec` decodes them, from normalised ones."""
        return np.asarray(values, np.float32) * self._scale + self._offset

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._items))
            for old in sorted(self._orders)[: -_EPOCHS_KEPT + 1]:
                self._orders.pop(old, None)
            self._orders[epoch] = order
        return order


def latent_batches(
    crops: LatentCrops,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 8,
    buffered_batches: int = 4,
) -> "grain.DatasetIterator":
    """Endless batches of crops: dictionaries of arrays [batch_size / process_count, …], this process's part.

    Batch b of all processes together is the crops b·B … (b+1)·B − 1, whatever the number of processes. The
    iterator is Grain's: `get_state` and `set_state` carry its place, and with the same crops, batch size and
    processes what follows is the same bit for bit.

    Args:
      crops: the source.
      batch_size: crops of all processes together.
      process_index, process_count: which of how many processes this is, as in `jax.process_index()`.
      threads: threads that read.
      buffered_batches: batches read ahead.

    Raises:
      UserError: Grain is not installed, or the batch cannot be split over the processes.
    """
    grain = require("grain", extra="train")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch_size {batch_size} cannot be split over {process_count} processes")
    share = _Share(process_index, process_count, batch_size // process_count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffered_batches * share.rows)
    dataset = grain.MapDataset.source(share).map(crops.__getitem__).to_iter_dataset(options)
    return iter(dataset.batch(share.rows, drop_remainder=True))


class _Share:
    """The numbers of the crops that one process loads: its rows of each batch."""

    def __init__(self, index: int, count: int, rows: int):
        self.index, self.count, self.rows = index, count, rows

    def __len__(self) -> int:
        return _ENDLESS // self.count

    def __getitem__(self, position: int) -> int:
        batch, row = divmod(position, self.rows)
        return (batch * self.count + self.index) * self.rows + row
