"""How files store a weight that is normalised: gain and direction under older or newer names, or folded."""

from collections.abc import Mapping

import numpy as np

from earvae_jax.convert.foreign.layouts import under_new_keys
from earvae_jax.errors import UserError

_NEWER = {  # torch.nn.utils.parametrizations, and the published keys
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}
_CONVOLUTION_AXES = 3
# Of the largest weight: more than rounding weight, gain and direction to bfloat16 does.
_HALF_PRECISION = 2**-6


def as_gain_and_direction(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weight norm under its published keys, whichever way the file stores it.

    Raises:
      UserError: it is stored in two ways that are not the same weights; the message does not name the file.
    """
    state = under_new_keys((key, _published(key), array) for key, array in tensors.items())
    weights = [key for key in state if key.startswith(("encoder.", "decoder.")) and key.endswith(".weight")]
    for key in weights:
        if state[key].ndim != _CONVOLUTION_AXES:
            continue
        weight, gain, direction = state.pop(key), f"{key}_g", f"{key}_v"
        if gain not in state and direction not in state:
            state[gain], state[direction] = _unfolded(weight)
        elif gain in state and direction in state and not _is_folded(weight, state[gain], state[direction]):
            raise UserError(
                f"holds two models: {key} is not what {gain} and {direction} make; keep one of them"
            )
    return state


def _published(key: str) -> str:
    return next((key.removesuffix(end) + _NEWER[end] for end in _NEWER if key.endswith(end)), key)


def _is_folded(weight: np.ndarray, gain: np.ndarray, direction: np.ndarray) -> bool:
    """Whether a weight is what gain and direction make, as far as half precision tells."""
    if weight.shape != direction.shape or gain.size != len(direction):
        return False
    norm = _norm(direction)
    made = gain.reshape(-1, 1, 1) * direction / np.where(norm == 0, 1, norm)
    return np.allclose(made, weight, rtol=0, atol=_HALF_PRECISION * np.abs(weight).max(), equal_nan=True)


def _unfolded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and direction whose product is the weight; a channel of zeros gets an arbitrary direction."""
    norm = _norm(weight)
    return norm.astype(np.float32), np.where(norm == 0, np.float32(1), weight)


def _norm(weight: np.ndarray) -> np.ndarray:
    """The norm of each channel, [C, 1, 1]."""
    return np.sqrt(np.sum(np.square(weight, dtype=np.float64), axis=(1, 2), keepdims=True))
