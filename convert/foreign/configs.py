"""Reads the JSON of an Oobleck model in whichever form a project publishes it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from earvae_jax.borders import one_line, read_json
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

STD_OFFSET = 1e-4  # of every published Oobleck but εar-VAE
_MARKS = ("_class_name", "model_type", "type", "architectures")  # what a JSON says about itself
# diffusers' `AutoencoderOobleck.__init__`.
_DIFFUSERS_DEFAULTS: Mapping[str, Any] = {
    "encoder_hidden_size": 128,
    "downsampling_ratios": [2, 4, 4, 8, 8],
    "channel_multiples": [1, 2, 4, 8, 16],
    "decoder_channels": 128,
    "decoder_input_channels": 64,
    "audio_channels": 2,
    "sampling_rate": 44_100,
}


class NotOobleckError(UserError):
    """A JSON that is whole, and describes something else."""


@dataclasses.dataclass(frozen=True)
class GivenConfig:
    """What a JSON says about a model."""

    config: ModelConfig
    says_offset: bool = True  # whether `std_offset` is stated, or follows from the form
    scale: float | None = None  # of the pretransform of a generator, which the autoencoder does not apply


def read(path: str | Path) -> GivenConfig:
    """Reads a config of εar-VAE, stable-audio-tools, diffusers or YuE2.

    Raises:
      NotOobleckError: the JSON describes something else.
      UserError: the file cannot be read, or its config is incomplete or cannot be run.
    """
    values = read_json(path, "config file")
    try:
        return from_json(values)
    except NotOobleckError as error:
        raise NotOobleckError(f"{path}: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_json(values: Any) -> GivenConfig:
    """The config in a parsed JSON; errors do not name the file."""
    if not isinstance(values, Mapping):
        raise NotOobleckError("model config: the file holds no JSON object")
    for marks, reader in _READERS:
        if marks(values):
            return reader(values)
    said = ", ".join(f"{mark} {values[mark]}" for mark in _MARKS if values.get(mark))
    raise NotOobleckError(one_line(f"not the config of an Oobleck autoencoder{said and f' but of {said}'}"))


def _own(values: Mapping[str, Any]) -> GivenConfig:
    return GivenConfig(ModelConfig.from_dict(values), "std_offset" in values)


def _diffusers(values: Mapping[str, Any]) -> GivenConfig:
    known = {
        **_DIFFUSERS_DEFAULTS,
        **{key: value for key, value in values.items() if not key.startswith("_")},
    }
    unknown = known.keys() - _DIFFUSERS_DEFAULTS.keys()
    if unknown:
        raise UserError(one_line(f"model config: unknown key {', '.join(sorted(unknown))}"))
    shared = {
        "c_mults": known["channel_multiples"],
        "strides": known["downsampling_ratios"],
        "use_snake": True,
    }
    hidden, channels = known["encoder_hidden_size"], known["audio_channels"]
    latent_dim = known["decoder_input_channels"]
    encoder = {"channels": hidden, "latent_dim": hidden, "in_channels": channels}
    decoder = {"channels": known["decoder_channels"], "latent_dim": latent_dim, "out_channels": channels}
    return GivenConfig(
        ModelConfig.from_dict(
            {
                "encoder": {"config": {**shared, **encoder}},
                "decoder": {"config": {**shared, **decoder, "final_tanh": False}},
                "latent_dim": latent_dim,
                "downsampling_ratio": _product(known["downsampling_ratios"]),
                "io_channels": channels,
                "sample_rate": known["sampling_rate"],
                "std_offset": STD_OFFSET,
            }
        )
    )


def _yue2(values: Mapping[str, Any]) -> GivenConfig:
    decoder = dict(_object(values["decoder_config"], "decoder_config"))
    for key, wanted in (("snake_type", "vanilla"), ("use_filter", False)):
        if decoder.pop(key, wanted) != wanted:
            raise UserError(
                f"model config: decoder_config: {key} must be {wanted!r}: other activations cannot run"
            )
    return GivenConfig(
        ModelConfig.from_dict(
            {
                "encoder": {"config": _object(values["encoder_config"], "encoder_config")},
                "decoder": {"config": decoder},
                "latent_dim": values.get("latent_dim"),
                "downsampling_ratio": values.get("downsampling_ratio"),
                "io_channels": values.get("audio_channels", 2),
                "sample_rate": values.get("sample_rate"),
                "std_offset": STD_OFFSET,
            }
        )
    )


def _stable_audio_tools(values: Mapping[str, Any]) -> GivenConfig:
    """A whole model, the pretransform of a generator, or an autoencoder alone."""
    rate, scale = values.get("sample_rate"), None
    if "model" in values:
        values = _object(values["model"], "model")
    if "pretransform" in values and "encoder" not in values:
        values = _object(values["pretransform"], "pretransform")
    if "encoder" not in values and "config" in values:  # a pretransform
        if values.get("type", "autoencoder") != "autoencoder":
            raise NotOobleckError(one_line(f"its pretransform is {values['type']!r}, not an autoencoder"))
        scale = values.get("scale")
        if scale is not None and type(scale) not in (int, float):
            raise UserError(one_line(f"model config: the pretransform's scale is {scale!r}, not a number"))
        values = _object(values["config"], "pretransform: config")
    if "encoder" not in values:
        raise NotOobleckError("a model of stable-audio-tools without an autoencoder")
    halves = {half: dict(_object(values.get(half), half)) for half in ("encoder", "decoder")}
    bottleneck = _object(values.get("bottleneck", {}), "bottleneck")
    for what, kind, wanted in (
        *((half, options.get("type"), "oobleck") for half, options in halves.items()),
        ("bottleneck", bottleneck.get("type"), "vae"),
    ):
        if kind != wanted:
            raise NotOobleckError(one_line(f"its {what} is of the type {kind!r}, not {wanted!r}"))
    if values.get("pretransform"):
        raise NotOobleckError("its autoencoder has a pretransform of its own, which cannot be run")
    io_channels = values.get("io_channels")
    for key in ("in_channels", "out_channels"):
        if values.get(key, io_channels) != io_channels:
            raise UserError(one_line(f"model config: {key} {values[key]} is not io_channels {io_channels}"))
    decoder = dict(_object(halves["decoder"].get("config", {}), "decoder: config"))
    if halves["decoder"].get("soft_clip"):  # a tanh after the decoder
        if decoder.get("final_tanh", True):
            raise UserError("model config: the decoder has both final_tanh and soft_clip, a tanh twice")
        decoder["final_tanh"] = True
    return GivenConfig(
        ModelConfig.from_dict(
            {
                "encoder": {"config": halves["encoder"].get("config", {})},
                "decoder": {"config": decoder},
                "latent_dim": values.get("latent_dim"),
                "downsampling_ratio": values.get("downsampling_ratio"),
                "io_channels": io_channels,
                "sample_rate": values.get("sample_rate", rate),
                "std_offset": STD_OFFSET,
            }
        ),
        scale=None if scale is None else float(scale),
    )


def _is_own(values: Mapping[str, Any]) -> bool:
    halves = [values.get(half) for half in ("encoder", "decoder")]
    return any(isinstance(half, Mapping) for half in halves) and not _is_stable_audio_tools(values)


def _is_diffusers(values: Mapping[str, Any]) -> bool:
    named = values.get("_class_name") == "AutoencoderOobleck"
    return named or ("downsampling_ratios" in values and "channel_multiples" in values)


def _is_yue2(values: Mapping[str, Any]) -> bool:
    return "encoder_config" in values and "decoder_config" in values


def _is_stable_audio_tools(values: Mapping[str, Any]) -> bool:
    encoder = values.get("encoder")
    inside = isinstance(encoder, Mapping) and ("type" in encoder or "bottleneck" in values)
    pretransform = values.get("type") == "autoencoder" and isinstance(values.get("config"), Mapping)
    return isinstance(values.get("model"), Mapping) or inside or pretransform


_READERS: tuple[
    tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], GivenConfig]], ...
] = (
    (_is_diffusers, _diffusers),
    (_is_yue2, _yue2),
    (_is_stable_audio_tools, _stable_audio_tools),
    (_is_own, _own),
)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"model config: {name} is {'missing' if value is None else 'not an object'}")
    return value


def _product(factors: Any) -> int:
    product = 1
    for factor in factors if isinstance(factors, list) else ():
        if type(factor) is not int:
            break  # the config's own check names it
        product *= factor
    return product
