"""A model in the layouts of other projects: their keys and their JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from earvae_jax.convert.foreign.configs import STD_OFFSET
from earvae_jax.convert.foreign.layouts import diffusers_modules
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

State = Mapping[str, np.ndarray]  # published keys, PyTorch's layout of the axes


class NotHeldError(UserError):
    """A project's class cannot be such a model."""


def to_diffusers(config: ModelConfig, state: State) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the config of diffusers' `AutoencoderOobleck`.

    Raises:
      NotHeldError: the class cannot be such a model.
      UserError: the model does not say its sample rate.
    """
    encoder, decoder = config.encoder, config.decoder
    _refuse(
        "diffusers",
        config,
        {
            "nearest-neighbour upsampling": decoder.use_nearest_upsample,
            "antialiased activations": encoder.antialias_activation or decoder.antialias_activation,
            "ELU activations": not (encoder.use_snake and decoder.use_snake),
            "a final tanh": decoder.final_tanh,
            "halves of different strides": encoder.strides != decoder.strides,
            "halves of different c_mults": encoder.c_mults != decoder.c_mults,
            "an encoder whose channels are not its latent_dim": encoder.channels != encoder.latent_dim,
        },
    )
    names = {ours: theirs for theirs, ours in diffusers_modules(len(encoder.strides)).items()}
    tensors = {}
    for key, array in state.items():
        module, _, part = key.rpartition(".")
        tensors[f"{names[module]}.{part}"] = array.reshape(1, -1, 1) if part in ("alpha", "beta") else array
    return tensors, {
        "_class_name": "AutoencoderOobleck",
        "encoder_hidden_size": encoder.channels,
        "downsampling_ratios": list(encoder.strides),
        "channel_multiples": list(encoder.c_mults),
        "decoder_channels": decoder.channels,
        "decoder_input_channels": decoder.latent_dim,
        "audio_channels": config.io_channels,
        "sampling_rate": config.sample_rate,
    }


def to_stable_audio_tools(config: ModelConfig, state: State) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the config of an autoencoder of stable-audio-tools.

    Raises:
      NotHeldError: its class cannot be such a model.
      UserError: the model does not say its sample rate.
    """
    nearest = config.decoder.use_nearest_upsample
    biases = [key for key in state if nearest and key.endswith(".layers.1.conv.bias")]
    _refuse(
        "stable-audio-tools",
        config,
        {"a bias after nearest-neighbour upsampling": any(np.any(state[key]) for key in biases)},
    )
    tensors = {
        key.replace(".layers.1.conv.", ".layers.1.1."): array
        for key, array in state.items()
        if key not in biases
    }
    values = config.to_dict()
    halves = {}
    for half in ("encoder", "decoder"):
        options = values[half]["config"]
        theirs = {key: value for key, value in options.items() if key not in ("tied_activations", "bias")}
        halves[half] = {"type": "oobleck", "config": theirs}
    return tensors, {
        "model_type": "autoencoder",
        "sample_size": 32 * config.downsampling_ratio,
        "sample_rate": config.sample_rate,
        "audio_channels": config.io_channels,
        "model": {
            **halves,
            "bottleneck": {"type": "vae"},
            "latent_dim": config.latent_dim,
            "downsampling_ratio": config.downsampling_ratio,
            "io_channels": config.io_channels,
        },
    }


def _refuse(project: str, config: ModelConfig, others: Mapping[str, bool]) -> None:
    """Refuses what a project's class has not, and warns of another standard deviation."""
    known = {
        "a transformer": config.transformer is not None,
        "convolutions without bias": not (config.encoder.bias and config.decoder.bias),
        **others,
    }
    if found := [what for what, present in known.items() if present]:
        raise NotHeldError(f"{project} has no model with {', nor '.join(found)}")
    if config.sample_rate is None:
        raise UserError("the model does not say its sample rate, which the JSON needs: convert it again")
    if config.std_offset != STD_OFFSET:
        logging.warning(
            "%s adds %g to the standard deviation and this model %g: the means are equal",
            project,
            STD_OFFSET,
            config.std_offset,
        )
