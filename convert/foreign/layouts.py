"""Other ways to name the same tensors: diffusers', stable-audio-tools', and what wrappers add to a key."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from earvae_jax.errors import UserError

# Segments that `torch.compile`, data parallelism and their relatives put anywhere into a key.
_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_PARAMETER = re.compile(r"(.*)\.(weight(?:_[gv])?|bias|alpha|beta|parametrizations\.weight\.original[01])")
_BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d+)\..*")
_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
_NEAREST = re.compile(r"(decoder\.layers\.\d+\.layers\.1)\.1")
_SNAKE_AXES = 3  # diffusers' α and β are [1, C, 1]


def without_wrappers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under keys without what `torch.compile` and data parallelism add to them.

    Raises:
      UserError: two different tensors then have the same key.
    """
    return under_new_keys(
        (key, ".".join(part for part in key.split(".") if part not in _WRAPPERS), array)
        for key, array in tensors.items()
    )


def under_new_keys(renamed: Iterable[tuple[str, str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tensors under new keys, where several keys may stand for one tensor.

    Args:
      renamed: for each tensor its key, its new key and its values.

    Raises:
      UserError: two different tensors then have the same key.
    """
    state: dict[str, np.ndarray] = {}
    before: dict[str, str] = {}
    for old, new, array in renamed:
        if new in state and not np.array_equal(state[new], array, equal_nan=True):
            raise UserError(f"holds two models: {before[new]} and {old} differ; keep one of them")
        state[new], before[new] = array, old
    return state


def diffusers_modules(levels: int) -> dict[str, str]:
    """For each module of diffusers' `AutoencoderOobleck` with so many blocks, its published name."""
    names = {}
    for half in ("encoder", "decoder"):
        names[f"{half}.conv1"] = f"{half}.layers.0"
        names[f"{half}.snake1"] = f"{half}.layers.{levels + 1}"
        names[f"{half}.conv2"] = f"{half}.layers.{levels + 2}"
        first_unit = 0 if half == "encoder" else 2
        around = {"snake1": 3, "conv1": 4} if half == "encoder" else {"snake1": 0, "conv_t1": 1}
        for block in range(levels):
            theirs, ours = f"{half}.block.{block}", f"{half}.layers.{block + 1}.layers"
            names |= {f"{theirs}.{module}": f"{ours}.{place}" for module, place in around.items()}
            for unit in range(3):
                names |= {
                    f"{theirs}.res_unit{unit + 1}.{module}": f"{ours}.{first_unit + unit}.layers.{place}"
                    for module, place in _UNIT.items()
                }
    return names


def is_diffusers(keys: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the bare keys of diffusers' class."""
    return any(_BLOCK.fullmatch(key) for key in keys)


def from_diffusers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """diffusers' tensors under the published keys; a key that its class does not have stays as it is.

    Raises:
      UserError: different tensors are there under the published keys too.
    """
    blocks = {match[2] for key in tensors if (match := _BLOCK.fullmatch(key))}
    names = diffusers_modules(len(blocks))

    def new_key(key: str) -> str:
        match = _PARAMETER.fullmatch(key)
        return f"{names[match[1]]}.{match[2]}" if match and match[1] in names else key

    return under_new_keys(
        (key, new_key(key), _snake_of_one_axis(key, array)) for key, array in tensors.items()
    )


def _snake_of_one_axis(key: str, array: np.ndarray) -> np.ndarray:
    """α and β as [C]; diffusers has [1, C, 1], and so has a file of its tensors under other keys."""
    is_snake = key.endswith((".alpha", ".beta")) and key.startswith(("encoder.", "decoder."))
    return array.reshape(-1) if is_snake and array.ndim == _SNAKE_AXES else array


def from_stable_audio_tools(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """stable-audio-tools' tensors under the published keys: they differ where steps are repeated.

    Its convolution after the repetition never has a bias; the published one has, and gets zeros.

    Raises:
      UserError: different tensors are there under the published keys too.
    """
    renamed, biases = [], {}
    has_bias = any(key.startswith("decoder.") and key.endswith(".bias") for key in tensors)
    for key, array in tensors.items():
        match = _PARAMETER.fullmatch(key)
        nearest = match and _NEAREST.fullmatch(match[1])
        if not match or not nearest:
            renamed.append((key, key, _snake_of_one_axis(key, array)))
            continue
        renamed.append((key, f"{nearest[1]}.conv.{match[2]}", array))
        if has_bias and match[2] in ("weight", "weight_v", "parametrizations.weight.original1"):
            biases[f"{nearest[1]}.conv.bias"] = np.zeros(array.shape[:1], np.float32)
    return {**biases, **under_new_keys(renamed)}
