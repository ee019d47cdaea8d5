"""Fixed transforms at the rate of the codec, 64 numbers for 1024 stereo samples: what a model has to beat.

All are orthonormal and keep equally many coefficients of each block, so they lose exactly the energy of the
others. Audio is `[T, 2]`, left and right, in and out; the last block is filled up with zeros and cut again.
"""

from collections.abc import Iterable

import numpy as np
import scipy.linalg
from jaxtyping import Float
from scipy import fft

BLOCK = 1024  # samples: the downsampling of the published codec
KEPT = 64  # numbers of a block: its latent channels
MID, SIDE = 48, 16  # of them; 40 and 24 give half a decibel more (docs/music.md)
_LESS = 1e-20  # energy below which audio is silent


def block_dct(
    audio: Float[np.ndarray, "T 2"], mid: int = MID, side: int = SIDE, *, block: int = BLOCK
) -> Float[np.ndarray, "T 2"]:
    """Rebuilds audio from the lowest `mid` and `side` coefficients of the DCT-II of each block."""
    return _dct_inverse(_lowest(_dct(_mid_side(audio), block), mid, side), len(audio))


def lapped_dct(
    audio: Float[np.ndarray, "T 2"], mid: int = MID, side: int = SIDE, *, block: int = BLOCK
) -> Float[np.ndarray, "T 2"]:
    """As `block_dct` with blocks that overlap by half: the MDCT with a sine window of `2 · block` samples.

    It keeps as many numbers, as each of its blocks has `block` coefficients. An encoder that sees more
    samples than one latent stands for can do this too.
    """
    return _mdct_inverse(_lowest(_mdct(_mid_side(audio), block), mid, side), len(audio))


def best_split(
    audio: Float[np.ndarray, "T 2"], kept: int = KEPT, *, block: int = BLOCK, lapped: bool = False
) -> tuple[int, int]:
    """How many of `kept` coefficients to take of mid and of side for the highest SI-SDR of this piece.

    The energies of the coefficients decide, as the transforms keep inner products. The channels' means are
    removed first, as in SI-SDR.
    """
    centred = _mid_side(audio - audio.mean(axis=0, dtype=np.float64).astype(audio.dtype))
    mid, side = np.moveaxis((_mdct if lapped else _dct)(centred, block)[:, :kept], -1, 0)
    energies = [
        np.einsum("kf,kf->f", a, b, dtype=np.float64) for a, b in ((mid, mid), (side, side), (mid, side))
    ]
    # Sums over the lowest coefficients, for each number of them.
    mids, sides, products = (np.concatenate([[0.0], np.cumsum(energy)]) for energy in energies)
    totals = np.sum(np.square(audio - audio.mean(axis=0, dtype=np.float64)), axis=0)
    of_mid = np.arange(kept + 1)
    of_side = kept - of_mid
    both = np.minimum(of_mid, of_side)
    ratios = []
    for sign, total in zip((1, -1), totals, strict=True):
        if total < _LESS * len(audio):
            continue
        estimate = (mids[of_mid] + sides[of_side] + 2 * sign * products[both]) / 2
        product = (mids[of_mid] + sides[of_side] + sign * (products[of_mid] + products[of_side])) / 2
        projection = product**2 / total
        ratios.append(np.log(projection + _LESS) - np.log(np.maximum(estimate - projection, _LESS)))
    best = int(np.argmax(np.mean(ratios, axis=0))) if ratios else MID * kept // KEPT
    return best, kept - best


def adaptive_dct(
    audio: Float[np.ndarray, "T 2"], kept: int = KEPT - 1, *, block: int = BLOCK
) -> Float[np.ndarray, "T 2"]:
    """As `block_dct` with a division between mid and side that is the best one of each block.

    One number of a block says what its division is, so one coefficient fewer is kept. The best division
    keeps the most energy.
    """
    coefficients = _dct(_mid_side(audio), block)
    energies = np.cumsum(np.square(coefficients[:, :kept], dtype=np.float64), axis=1)
    mids, sides = np.moveaxis(np.pad(energies, ((0, 0), (1, 0), (0, 0))), -1, 0)
    of_mid = np.argmax(mids + sides[:, ::-1], axis=1)
    return _dct_inverse(_lowest(coefficients, of_mid, kept - of_mid), len(audio))


def learn_klt(
    pieces: Iterable[Float[np.ndarray, "T 2"]], kept: int = KEPT, *, block: int = BLOCK
) -> Float[np.ndarray, "2·block kept"]:
    """The Karhunen-Loève transform of music: the `kept` directions that hold the most energy of its blocks.

    A block is one vector of its mid and side samples. Each piece counts by its length, as loud as any other.

    Raises:
      ValueError: all pieces are silent.
    """
    covariance = np.zeros((2 * block, 2 * block))
    for audio in pieces:
        vectors = _vectors(audio, block)
        energy = float(np.mean(np.square(vectors)))
        if energy > _LESS:
            covariance += (vectors.T @ vectors) / energy
    if not covariance.any():
        raise ValueError("there is nothing to learn from in silence")
    _, directions = scipy.linalg.eigh(covariance, subset_by_index=(2 * block - kept, 2 * block - 1))
    return np.ascontiguousarray(directions[:, ::-1], np.float32)


def klt(
    audio: Float[np.ndarray, "T 2"], directions: Float[np.ndarray, "2·block kept"]
) -> Float[np.ndarray, "T 2"]:
    """Rebuilds each block from its parts along the directions that `learn_klt` found."""
    vectors = _vectors(audio, len(directions) // 2)
    held = (vectors @ directions) @ directions.T
    return _mid_side(held.reshape(-1, 2)[: len(audio)])


def side_ratio(audio: Float[np.ndarray, "T 2"]) -> float | None:
    """Energy of the side signal against the mid signal in dB; None if one of them is silent."""
    mid, side = np.sum(np.square(_mid_side(audio), dtype=np.float64), axis=0)
    if min(mid, side) < _LESS * len(audio):
        return None
    return float(10 * np.log10(side / mid))


def _mid_side(audio: np.ndarray) -> np.ndarray:
    """Sum and difference of the two channels, divided by √2: orthonormal, and its own inverse."""
    left, right = audio.T
    return np.stack([left + right, left - right], axis=1) * audio.dtype.type(np.sqrt(0.5))


def _lowest(coefficients: np.ndarray, mid: int | np.ndarray, side: int | np.ndarray) -> np.ndarray:
    """The same with zeros above the lowest `mid` and `side`, one number or one a block; `[K, block, 2]`."""
    kept = np.stack([mid, side], axis=-1)[..., None, :]
    return np.where(np.arange(coefficients.shape[1])[:, None] < kept, coefficients, 0)


def _blocks(signals: np.ndarray, block: int, before: int = 0) -> np.ndarray:
    """`[T, 2]` after `before` zeros to whole blocks `[K, block, 2]`."""
    padded = np.pad(signals, ((before, -(before + len(signals)) % block), (0, 0)))
    return padded.reshape(-1, block, 2)


def _vectors(audio: np.ndarray, block: int) -> np.ndarray:
    blocks = _blocks(_mid_side(np.asarray(audio, np.float32)), block)
    return blocks.reshape(len(blocks), 2 * block)


def _dct(signals: np.ndarray, block: int) -> np.ndarray:
    return fft.dct(_blocks(signals, block), axis=1, norm="ortho")


def _dct_inverse(coefficients: np.ndarray, samples: int) -> np.ndarray:
    blocks = fft.idct(coefficients, axis=1, norm="ortho")
    return _mid_side(blocks.reshape(-1, 2)[:samples])


def _mdct(signals: np.ndarray, block: int) -> np.ndarray:
    """`[K + 1, block, 2]` of K blocks: each of window, folded in time and transformed by the DCT-IV."""
    blocks = _blocks(signals, block)
    silence = np.zeros_like(blocks[:1])
    first, second = np.concatenate([silence, blocks]), np.concatenate([blocks, silence])
    rising, half = _window(block, signals.dtype), block // 2
    first, second = first * rising, second * rising[::-1]
    folded = [
        -second[:, :half][:, ::-1] - second[:, half:],
        first[:, :half] - first[:, half:][:, ::-1],
    ]
    return fft.dct(np.concatenate(folded, axis=1), type=4, axis=1, norm="ortho")


def _mdct_inverse(coefficients: np.ndarray, samples: int) -> np.ndarray:
    folded = fft.dct(coefficients, type=4, axis=1, norm="ortho")
    block = folded.shape[1]
    half, rising = block // 2, _window(block, folded.dtype)
    early, late = folded[:, :half], folded[:, half:]
    first = np.concatenate([late, -late[:, ::-1]], axis=1) * rising
    second = np.concatenate([-early[:, ::-1], -early], axis=1) * rising[::-1]
    blocks = second[:-1] + first[1:]  # what each block was folded with cancels
    return _mid_side(blocks.reshape(-1, 2)[:samples])


def _window(block: int, dtype: np.dtype) -> np.ndarray:
    """The rising half of a sine window, `[block, 1]`."""
    return np.sin(np.pi * (np.arange(block) + 0.5) / (2 * block)).astype(dtype)[:, None]
