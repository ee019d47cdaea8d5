"""What the tensors of a state dict tell about the config of their model.

Most options leave a trace: a tensor, its width or its length. Options are named by their dotted place in the
config, such as `encoder.strides` or `transformer.ff_kwargs.mult`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from earvae_jax.convert.keys import half_of, snakes_of_units
from earvae_jax.errors import UserError


def traces(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every option that the tensors tell; none under `transformer.` if there is no transformer.

    Shapes and keys tell all but `tied_activations`, which equal tensors tell. They do not tell the sample
    rate, the decoder's final tanh, `std_offset`, unit-length queries and keys, or the width of a head if
    several widths fit.

    Raises:
      UserError: tensors that determine the config are missing or have impossible shapes; it names each.
    """
    shapes = _Shapes({key: tuple(array.shape) for key, array in state.items()})
    options = {**_encoder(shapes), **_decoder(shapes)}
    for half in ("encoder", "decoder"):
        options[f"{half}.tied_activations"] = not all_untied(state, half)
    options["latent_dim"] = options["decoder.latent_dim"]
    options["io_channels"] = options["encoder.in_channels"]
    options["downsampling_ratio"] = math.prod(options["encoder.strides"])
    if shapes.any(r"transformers\..*"):
        options.update(_transformer(shapes, options["latent_dim"]))
    if shapes.problems:
        raise UserError("the tensors do not tell the model's config: " + "; ".join(shapes.problems))
    return options


def all_untied(state: Mapping[str, np.ndarray], half: str) -> bool:
    """Whether every residual unit has two activations; a mixture is left to the strict loader to refuse."""
    units = [keys for unit, keys in snakes_of_units(state).items() if half_of(unit) == half]
    return bool(units) and None not in units


class _Shapes:
    """The shapes by key; notes what is missing or impossible, so that one message can name it all."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes
        self.problems: list[str] = []

    def any(self, pattern: str) -> bool:
        """Whether a key matches the whole pattern."""
        return any(re.fullmatch(pattern, key) for key in self.shapes)

    def last_index(self, pattern: str) -> int:
        """The largest number that the pattern's group finds at the beginning of a key; −1 if none.

        A number with more digits than the number of tensors is not an index: the strict loader names its key.
        """
        digits = len(str(len(self.shapes)))
        found = (re.match(pattern, key) for key in self.shapes)
        return max((int(match[1]) for match in found if match and len(match[1]) <= digits), default=-1)

    def of(self, key: str, axes: int) -> tuple[int, ...]:
        """The shape of a tensor that every such model has."""
        shape = self.shapes.get(key)
        if shape is not None and len(shape) == axes:
            return shape
        self.problems.append(
            f"missing {key}" if shape is None else f"{key} has {len(shape)} axes, not {axes}"
        )
        return (0,) * axes

    def quotient(self, key: str, size: int, unit: int) -> int:
        """size / unit, which must be whole; 0 if one of them is not known."""
        if unit == 0:
            return 0
        if size % unit:
            self.problems.append(f"{key} has size {size}, which is not a multiple of {unit}")
            return 0
        return size // unit


def _encoder(shapes: _Shapes) -> dict[str, Any]:
    levels = max(shapes.last_index(r"encoder\.layers\.(\d+)\.layers\."), 0)
    channels, inputs, _ = shapes.of("encoder.layers.0.weight_v", 3)
    keys = [f"encoder.layers.{level}.layers.4.weight_v" for level in range(1, levels + 1)]
    down: list[tuple[Any, ...]] = [(key, *shapes.of(key, 3)) for key in keys]  # key, outputs, inputs, width
    return {
        "encoder.in_channels": inputs,
        "encoder.channels": channels,
        "encoder.latent_dim": shapes.of(f"encoder.layers.{levels + 2}.weight_v", 3)[0],
        "encoder.c_mults": tuple(shapes.quotient(key, outputs, channels) for key, outputs, _, _ in down),
        "encoder.strides": tuple(shapes.quotient(key, width, 2) for key, _, _, width in down),
        "encoder.use_snake": shapes.any(r"encoder\..*\.alpha"),
        "encoder.antialias_activation": shapes.any(r"encoder\..*\.filter"),
        "encoder.bias": shapes.any(r"encoder\..*\.bias"),
    }


def _decoder(shapes: _Shapes) -> dict[str, Any]:
    levels = max(shapes.last_index(r"decoder\.layers\.(\d+)\.layers\."), 0)
    outputs, channels, _ = shapes.of(f"decoder.layers.{levels + 2}.weight_v", 3)
    nearest = shapes.any(r"decoder\.layers\.\d+\.layers\.1\.conv\..*")
    keys = [
        f"decoder.layers.{level}.layers.1.{'conv.' if nearest else ''}weight_v"
        for level in range(levels, 0, -1)
    ]
    up: list[tuple[Any, ...]] = [
        (key, *shapes.of(key, 3)) for key in keys
    ]  # key, inputs, outputs, width; nearest: outputs first
    inputs = 2 if nearest else 1
    return {
        "decoder.out_channels": outputs,
        "decoder.channels": channels,
        "decoder.latent_dim": shapes.of("decoder.layers.0.weight_v", 3)[1],
        "decoder.c_mults": tuple(shapes.quotient(row[0], row[inputs], channels) for row in up),
        "decoder.strides": tuple(shapes.quotient(row[0], row[3], 2) for row in up),
        "decoder.use_nearest_upsample": nearest,
        "decoder.use_snake": shapes.any(r"decoder\..*\.alpha"),
        "decoder.antialias_activation": shapes.any(r"decoder\..*\.filter"),
        "decoder.bias": shapes.any(r"decoder\..*\.bias"),
    }


def _transformer(shapes: _Shapes, dim: int) -> dict[str, Any]:
    block = "transformers.layers.0"
    glu = shapes.any(r".*\.ff\.ff\.0\.proj\.weight")
    first = f"{block}.ff.ff.0.{'proj' if glu else '1'}.weight"
    last = f"{block}.ff.ff.2.weight"
    conv = len(shapes.shapes.get(last, ())) == 3
    inner = shapes.of(last, 3 if conv else 2)[1]
    shapes.of(first, 3 if conv and not glu else 2)
    absolute = shapes.any(r"transformers\.pos_emb\.emb\.weight")
    rotary = shapes.any(r"transformers\.rotary_pos_emb\.inv_freq")
    per_head = shapes.any(r".*\.[qk]_norm\.weight")
    options = {
        "transformer.depth": shapes.last_index(r"transformers\.layers\.(\d+)\.") + 1,
        "transformer.rotary_pos_emb": rotary,
        "transformer.use_sinusoidal_emb": shapes.any(r"transformers\.pos_emb\.scale"),
        "transformer.use_abs_pos_emb": absolute,
        "transformer.conformer": shapes.any(r".*\.conformer\..*"),
        "transformer.remove_norms": not shapes.any(r".*\.(pre|ff)_norm\..*"),
        "transformer.attn_kwargs.qk_norm": "ln" if per_head else None,
        "transformer.ff_kwargs.mult": shapes.quotient(last, inner, dim),
        "transformer.ff_kwargs.glu": glu,
        "transformer.ff_kwargs.no_bias": not shapes.any(r".*\.ff\.ff\.2\.bias"),
        "transformer.ff_kwargs.use_conv": conv,
    }
    if absolute:
        options["transformer.abs_pos_emb_max_length"] = shapes.of("transformers.pos_emb.emb.weight", 2)[0]
    if conv:
        options["transformer.ff_kwargs.conv_kernel_size"] = shapes.of(last, 3)[2]
    if per_head:
        options["transformer.dim_heads"] = shapes.of(f"{block}.self_attn.q_norm.weight", 1)[0]
    elif rotary:
        turned = 2 * shapes.of("transformers.rotary_pos_emb.inv_freq", 1)[0]
        fitting = [d for d in range(max(1, turned), dim + 1) if dim % d == 0 and max(d // 2, 32) == turned]
        if len(fitting) == 1:
            options["transformer.dim_heads"] = fitting[0]
    return options
