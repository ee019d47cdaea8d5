"""Cuts a long signal into overlapping blocks of one shape, so that one program measures any length."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float


def overlapping_blocks(
    signal: Float[np.ndarray, "T C"], step: int, *, before: int, after: int, batch: int
) -> Iterator[tuple[Float[np.ndarray, "B L C"], np.ndarray]]:
    """Batches of blocks `signal[i · step − before : (i + 1) · step + after]`, zeros outside the signal.

    Yields `(blocks, remaining)`, with `L = before + step + after`. `remaining` counts the samples from each
    block's position `i · step` to the end of the signal; it is negative for blocks that only fill the last
    batch.
    """
    samples = len(signal)
    starts = np.arange(math.ceil(math.ceil(samples / step) / batch) * batch) * step
    for group in starts.reshape(-1, batch):
        blocks = np.zeros((batch, before + step + after, signal.shape[1]), signal.dtype)
        for block, start in zip(blocks, group, strict=True):
            first, last = max(start - before, 0), min(start + step + after, samples)
            if first < last:
                block[first - (start - before) : last - (start - before)] = signal[first:last]
        yield blocks, np.where(group < samples, samples - group, -1)
