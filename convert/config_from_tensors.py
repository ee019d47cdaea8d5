"""Finds the config of a state dict: from its tensors, from a config file, or from a published model.

The sample rate, the decoder's final tanh, the offset of the standard deviation and, for some shapes, the
width of a head leave no trace in the tensors. They come from a config file, from a flag, or from the
published model with the same shapes. The offset is 0 for εar-VAE, and `STD_OFFSET` for every other
published Oobleck.
`qk_norm: "l2"` leaves no trace either: it counts as absent unless a config file asks for it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from earvae_jax.convert.foreign.configs import STD_OFFSET
from earvae_jax.convert.keys import torch_tensors
from earvae_jax.convert.published import PUBLISHED, RELATIVES
from earvae_jax.convert.state_dict import Layout
from earvae_jax.convert.traces import all_untied, traces
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.parameters import differences

_QK_NORM = "transformer.attn_kwargs.qk_norm"
_FLAGS = {
    "sample_rate": "the sample rate (--sample-rate HZ)",
    "transformer.dim_heads": "the width of a head (--dim-heads WIDTH)",
    "decoder.final_tanh": "whether the decoder ends in tanh (--final-tanh or --no-final-tanh)",
}


@dataclasses.dataclass(frozen=True)
class Stated:
    """The caller's values for options without a trace; they override all other sources. None: not stated."""

    sample_rate: int | None = None  # Hz
    dim_heads: int | None = None
    final_tanh: bool | None = None
    std_offset: float | None = None
    rate_needed: bool = True  # refuse a model whose sample rate stays unknown

    def options(self) -> dict[str, Any]:
        """The stated values by dotted option."""
        values: dict[str, Any] = {
            "sample_rate": self.sample_rate,
            "transformer.dim_heads": self.dim_heads,
            "decoder.final_tanh": self.final_tanh,
            "std_offset": self.std_offset,
        }
        return {option: value for option, value in values.items() if value is not None}


NOTHING_STATED = Stated()


def from_tensors(
    state: Mapping[str, np.ndarray], stated: Stated = NOTHING_STATED, *, layout: Layout = "published"
) -> ModelConfig:
    """The config of a bare published state dict for which there is no config file.

    Args:
      layout: whose keys the file had.

    Raises:
      UserError: the tensors are not those of a model, or nothing states an option that left no trace.
    """
    traced = traces(state)
    known = {**_of_published_shape(traced), **_of_relative(traced, layout, stated.options())}
    options = {**known, **traced, **stated.options()}
    return _config(options, stated, transformer="transformer.depth" in traced)


def from_file(
    given: ModelConfig, state: Mapping[str, np.ndarray], stated: Stated = NOTHING_STATED
) -> ModelConfig:
    """A config file's config, checked against the tensors.

    They decide whether there is a transformer, and whether a residual unit has two activations, of which only
    this project's own configs speak.

    Raises:
      UserError: the file contradicts the tensors, or nothing states an option; one message names them all.
    """
    options = _flat(given)
    present = any(key.startswith("transformers.") for key in state)
    if present and given.transformer is None:
        logging.warning("the config has no transformer, the weights do: the weights decide")
        traced = traces(state)
        told = {**_of_published_shape(traced), **traced}
        options.update({option: value for option, value in told.items() if option.startswith("transformer.")})
    elif not present and given.transformer is not None:
        logging.warning("the config has a transformer, the weights have none: the weights decide")
        options = {
            option: value for option, value in options.items() if not option.startswith("transformer.")
        }
    for half in ("encoder", "decoder"):
        options[f"{half}.tied_activations"] &= not all_untied(state, half)
    if given.sample_rate is None:
        del options["sample_rate"]
    options |= stated.options()
    if "sample_rate" not in options:
        options |= _published_rate(state)
    config = _config(options, stated, transformer=present)
    _refuse_contradiction(config, state)
    return config


def _refuse_contradiction(config: ModelConfig, state: Mapping[str, np.ndarray]) -> None:
    """Raises if another config fits the tensors better; the strict loader reports plain damage."""
    problems = differences(torch_tensors(config), state)
    if not problems:
        return
    try:
        traced = traces(state)
        options = _flat(config)
        if options.get(_QK_NORM) == "l2" and traced.get(_QK_NORM, ...) is None:
            del traced[_QK_NORM]
        for half in ("encoder", "decoder"):  # two activations may be equal
            if not options[f"{half}.tied_activations"]:
                del traced[f"{half}.tied_activations"]
        fitting = _config({**options, **traced}, NOTHING_STATED, transformer=config.transformer is not None)
    except UserError:
        return  # the tensors are not a whole model
    contradictions = [
        f"{option} is {options.get(option)} in the config, {value} in the tensors"
        for option, value in traced.items()
        if options.get(option) != value
    ]
    if contradictions and len(differences(torch_tensors(fitting), state)) < len(problems):
        raise UserError("the config contradicts the weights: " + "; ".join(contradictions))


def is_relative(state: Mapping[str, np.ndarray], layout: Layout) -> bool:
    """Whether layout or activations tell that this is another project's Oobleck and not εar-VAE."""
    return layout != "published" or any(all_untied(state, half) for half in ("encoder", "decoder"))


def _of_relative(traced: Mapping[str, Any], layout: Layout, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a trace of another project's Oobleck; none if this may be an εar-VAE."""
    strides = traced["encoder.strides"]
    known = next((each for each in RELATIVES if each.config.encoder.strides == strides), None)
    untied = not (traced["encoder.tied_activations"] and traced["decoder.tied_activations"])
    if layout == "published" and not untied and (known is None or "transformer.depth" in traced):
        return {}
    options: dict[str, Any] = {"std_offset": STD_OFFSET}
    if layout == "diffusers":
        options["decoder.final_tanh"] = False
    if known is not None:
        options |= {"sample_rate": known.config.sample_rate, "decoder.final_tanh": False}
    assumed = {option: value for option, value in options.items() if option not in stated}
    if assumed:
        like = known.name if known else "other Oobleck models than εar-VAE"
        told = ", ".join(f"{option} {value}" for option, value in sorted(assumed.items()))
        logging.info("assuming, as in %s: %s (a flag or a --config JSON says otherwise)", like, told)
    return options


def _published_rate(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The sample rate, where the tensors have the shapes of a published model."""
    try:
        told = _of_published_shape(traces(state))
    except UserError:
        return {}  # the tensors are not a whole model
    return {option: value for option, value in told.items() if option == "sample_rate"}


def _of_published_shape(traced: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a trace, from the published model that has all the options with a trace."""
    for published in PUBLISHED:
        options = _flat(published.config)
        same_parts = ("transformer.depth" in traced) == ("transformer.depth" in options)
        if same_parts and all(options[option] == value for option, value in traced.items()):
            logging.info("the weights have the shapes of %s", published.name)
            return {option: options[option] for option in _FLAGS if option in options}
    return {}


def _config(options: Mapping[str, Any], stated: Stated, *, transformer: bool) -> ModelConfig:
    """Builds the config from dotted options, or raises if one is still open."""
    wanted = [option for option in _FLAGS if transformer or not option.startswith("transformer.")]
    if not stated.rate_needed:
        wanted.remove("sample_rate")
    open_ = [_FLAGS[option] for option in wanted if option not in options]
    if open_:
        raise UserError(f"nothing states {', nor '.join(open_)}: pass the flag, or a --config JSON that does")
    values: dict[str, Any] = {}
    for option, value in options.items():
        *parts, last = option.split(".")
        if parts == ["transformer"] and not transformer:
            continue  # a flag about a transformer that the model does not have
        place = values
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    for part in {"encoder", "decoder", "transformer"} & values.keys():
        depth = {"depth": values[part].pop("depth")} if part == "transformer" else {}
        values[part] = {**depth, "config": values[part]}
    return ModelConfig.from_dict(values)


def _flat(config: ModelConfig) -> dict[str, Any]:
    """Every option of a config, dotted; none under `transformer.` if there is no transformer."""
    flat = {}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = value

    values = dataclasses.asdict(config)
    if config.transformer is None:
        del values["transformer"]
    add("", values)
    return flat
