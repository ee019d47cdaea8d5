"""Convolutions of width 7 by the Toom-Cook algorithm F(4, 4): 3.5 multiplications for an output instead of 7.

Four outputs of a 4-tap convolution are coefficients of a product of polynomials, which its values at seven
points determine (Winograd, Arithmetic Complexity of Computations, 1980). A width of 7 is two groups of four
taps, the eighth being zero. The second group sees what the first sees four taps later, so each of the seven
products is one 2-tap convolution of the same transformed input.

Time is split into four phases: phase p holds the times 4q + p. With an odd dilation d the taps t, t + d,
t + 2d, t + 3d visit each phase once, so every slice below is contiguous and a stack of such convolutions
never interleaves. Layouts are [B, Q, C], Q steps of a quarter of the rate.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree
from numpy.polynomial import polynomial

from earvae_jax.model.convolution import conv1d

PHASES = 4
_TAPS = 4  # of a group
_GROUPS = 2
# Infinity is the seventh point. Small powers of two keep the transforms' factors exact, and the rounding of
# the products grows little in the transform back.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)

Phases = Sequence[Float[Array, "B Q C"]]


def _transforms(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`outputs` [4, 7], `kernel` [7, 4], `inputs` [7, 7]: y = outputs·((kernel·w) ∘ (inputs·x))."""
    count = len(points) + 1
    outputs, kernel = np.zeros((PHASES, count)), np.zeros((count, _TAPS))
    inputs = np.zeros((count, count))
    for i, point in enumerate(points):
        others = [other for j, other in enumerate(points) if j != i]
        outputs[:, i] = point ** np.arange(PHASES)
        kernel[i] = point ** np.arange(_TAPS) / np.prod([point - other for other in others])
        inputs[i, : count - 1] = polynomial.polyfromroots(others)
    outputs[-1, -1] = kernel[-1, -1] = 1
    inputs[-1] = polynomial.polyfromroots(points)
    return outputs, kernel, inputs


_OUTPUTS, _KERNEL, _INPUTS = _transforms(_POINTS)


def transform_kernel(kernel: Float[np.ndarray, "7 I O"]) -> tuple[Float[np.ndarray, "2 I O"], ...]:
    """The kernels of the seven 2-tap convolutions, worked out in float64."""
    width, inputs, outputs = kernel.shape
    taps = np.zeros((_GROUPS, _TAPS, inputs * outputs))
    taps.reshape(_GROUPS * _TAPS, inputs, outputs)[:width] = kernel
    points = np.matmul(_KERNEL, taps)  # [groups, points, I·O]
    points = points.swapaxes(0, 1).astype(np.float32)
    return tuple(points.reshape(-1, _GROUPS, inputs, outputs))


def lag(dilation: int) -> int:
    """Quarter-rate steps from the first input of `convolve` to its first output, not counting the taps."""
    return (PHASES - 1) * dilation // PHASES


def inputs_for(outputs: int, dilation: int) -> int:
    """Quarter-rate steps of input that `convolve` needs for `outputs` such steps of output."""
    last = PHASES * (outputs + lag(dilation) - 1) + (PHASES + len(_POINTS)) * dilation
    return last // PHASES + 1


def split(x: Float[Array, "B T C"]) -> list[Float[Array, "B Q C"]]:
    """The four phases of a signal whose length is a multiple of 4."""
    batch, length, channels = x.shape
    x = x.reshape(batch, length // PHASES, PHASES, channels)
    return pinned([x[:, :, phase] for phase in range(PHASES)])


def join(phases: Phases) -> Float[Array, "B T C"]:
    """The signal that `split` took apart."""
    batch, steps, channels = phases[0].shape
    return jnp.stack(phases, axis=2).reshape(batch, PHASES * steps, channels)


def window(phases: Phases, start: int, steps: int) -> list[Float[Array, "B Q C"]]:
    """The phases of the signal from time `start` on."""
    times = range(start, start + PHASES)
    return [_steps(phases[time % PHASES], time // PHASES, steps) for time in times]


def pinned(arrays: PyTree[Array]) -> PyTree[Array]:
    """Makes the compiler write these arrays to memory instead of computing them again in each reader."""
    return lax.optimization_barrier(arrays)


def convolve(
    phases: Phases, kernels: Sequence[Float[Array, "2 I O"]], dilation: int, steps: int
) -> list[Float[Array, "B Q O"]]:
    """y[t] = Σ_k kernel[k] · x[t + k·dilation] from t = 4·lag(dilation) on, `steps` quarter-rate steps of it.

    Args:
      phases: at least inputs_for(steps, dilation) steps each.
      kernels: from `transform_kernel`.
      dilation: odd.
    """
    behind = lag(dilation)
    rows = steps + behind
    taps = [
        _steps(phases[time % PHASES], time // PHASES, rows + dilation)
        for time in range(0, len(_INPUTS) * dilation, dilation)
    ]
    products = pinned(
        [
            conv1d(_combined(row, taps), kernel, dilation=dilation)
            for row, kernel in zip(_INPUTS, kernels, strict=True)
        ]
    )
    result: dict[int, Array] = {}
    for j, row in enumerate(_OUTPUTS):
        # Row j gives the times 4q + j·d.
        start = behind - j * dilation // PHASES
        result[j * dilation % PHASES] = _combined(row, [_steps(m, start, steps) for m in products])
    return [result[phase] for phase in range(PHASES)]


def _combined(coefficients: Sequence[float], terms: Phases) -> Float[Array, "B Q C"]:
    total = None
    for coefficient, term in zip(coefficients, terms, strict=True):
        if coefficient:
            term = term if coefficient == 1 else term * np.float32(coefficient)
            total = term if total is None else total + term
    assert total is not None  # no row of coefficients is all zeros
    return total


def _steps(x: Float[Array, "B Q C"], start: int, count: int) -> Float[Array, "B Q2 C"]:
    return lax.slice_in_dim(x, start, start + count, axis=1)
