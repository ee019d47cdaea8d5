"""Averages of weights over training as their writers store them: without dots, of no step, or in part."""

import re
from collections.abc import Callable, Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]
# Lightning's `WeightAveraging` moves the raw weights there, and puts the averaged ones under "state_dict".
RAW_OF_LIGHTNING = "current_model_state."
_OF_LIGHTNING = "averaging_state."
_COUNTER = "n_averaged"  # of `torch.optim.swa_utils.AveragedModel`
# The second activation of a residual unit. One that is the first too has that name alone among parameters.
_SECOND = re.compile(r"layers\.2(?=\.(?:alpha|beta)$)|snake2(?=\.)")
_FIRST = {"layers.2": "layers.0", "snake2": "snake1"}
_CONSTANT = re.compile(r".*\.(inv_freq|filter)")


def with_dots(tensors: Tensors, is_average: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Averages whose keys lost their dots, as LitEma writes them, under the keys of the weights beside them.

    Args:
      is_average: whether a name says that its weights are an average.
    """
    dotless = {
        key
        for key in tensors
        if is_average(key.rpartition(".")[0].rpartition(".")[2]) and tensors[key].size > 1
    }
    if not dotless:
        return dict(tensors)
    dotted: dict[str, str] = {}
    for key in tensors.keys() - dotless:
        parts = key.split(".")
        for start in range(len(parts) - 1):
            dotted["".join(parts[start:])] = ".".join(parts[start:])
    renamed = {}
    for key, array in tensors.items():
        place, _, name = key.rpartition(".")
        renamed[f"{place}.{dotted[name]}" if key in dotless and name in dotted else key] = array
    return renamed


def never_begun(tensors: Tensors) -> list[str]:
    """The prefixes of averages of no step at all, which are the weights that training began with."""
    found = []
    for key, array in tensors.items():
        if key.rpartition(".")[2] == _COUNTER and array.size == 1 and not array.any():
            prefix = key.removesuffix(_COUNTER)
            found.append("state_dict." if prefix == _OF_LIGHTNING else prefix)
    return found


def completed(average: Tensors, raw: Tensors) -> dict[str, np.ndarray]:
    """An average with what is no trained parameter of its own: shared activations, and constants.

    Args:
      average: its tensors by key.
      raw: those of the weights beside it, by the same keys.
    """
    whole = dict(average)
    for key in raw.keys() - average.keys():
        twin = _SECOND.sub(lambda match: _FIRST[match[0]], key)
        if twin != key and twin in average and twin in raw and np.array_equal(raw[key], raw[twin]):
            whole[key] = average[twin]
        elif _CONSTANT.fullmatch(key):
            whole[key] = raw[key]
    return whole
