"""Other ways to name the same tensors: diffusers', stable-audio-tools', and what wrappers add to a key."""

import re
from collections.abc import Mapping

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
    plain: dict[str, np.ndarray] = {}
    before: dict[str, str] = {}
    for key, array in tensors.items():
        short = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if short in plain and not np.array_equal(plain[short], array, equal_nan=True):
            raise UserError(f"holds two models: {before[short]} and {key} differ; keep one of them")
        plain[short], before[short] = array, key
    return plain


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
    """diffusers' tensors under the published keys; a key that its class does not have stays as it is."""
    blocks = {match[2] for key in tensors if (match := _BLOCK.fullmatch(key))}
    names = diffusers_modules(len(blocks))
    state = {}
    for key, array in tensors.items():
        match = _PARAMETER.fullmatch(key)
        if match is None or match[1] not in names:
            state[key] = array
            continue
        snake = match[2] in ("alpha", "beta") and array.ndim == _SNAKE_AXES
        state[f"{names[match[1]]}.{match[2]}"] = array.reshape(-1) if snake else array
    return state


def from_stable_audio_tools(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """stable-audio-tools' tensors under the published keys: they differ where steps are repeated.

    Its convolution after the repetition never has a bias; the published one has, and gets zeros.
    """
    state = {}
    has_bias = any(key.startswith("decoder.") and key.endswith(".bias") for key in tensors)
    for key, array in tensors.items():
        match = _PARAMETER.fullmatch(key)
        nearest = match and _NEAREST.fullmatch(match[1])
        if not match or not nearest:
            state[key] = array
            continue
        state[f"{nearest[1]}.conv.{match[2]}"] = array
        if has_bias and match[2] in ("weight", "weight_v", "parametrizations.weight.original1"):
            state.setdefault(f"{nearest[1]}.conv.bias", np.zeros(array.shape[:1], np.float32))
    return state
