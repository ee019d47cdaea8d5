"""diffusers' own `AutoencoderOobleck` with the same weights, in place of the port."""

import dataclasses
import types
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earvae_jax.borders import explaining, reason
from earvae_jax.convert.foreign import exports
from earvae_jax.convert.foreign.configs import STD_OFFSET
from earvae_jax.convert.state_dict import WeightsFile, raw_tensors
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

_CLASS = "AutoencoderOobleck"


def version() -> str:
    """The version of diffusers that is installed.

    Raises:
      UserError: none is, or it cannot be used.
    """
    return _diffusers().__version__


def build(
    config: ModelConfig, state: Mapping[str, np.ndarray], file: WeightsFile | None
) -> tuple[nn.Module, bool]:
    """The class in evaluation mode, and whether it loaded the tensors of the file as they lie there.

    It does so where the file has its keys and nothing else. Else it gets them in its layout, as `convert
    to-torch` writes it.

    Raises:
      UserError: diffusers is not installed, or its class cannot be such a model.
    """
    diffusers = _diffusers()
    # Parity does not depend on the rate, but the JSON wants one.
    rated = dataclasses.replace(config, sample_rate=config.sample_rate or 44_100)
    try:
        tensors, values = exports.to_diffusers(rated, state)
    except exports.NotHeldError as error:
        raise UserError(f"{error}: leave out --reference to compare with the port") from None
    with (
        explaining(f"diffusers {diffusers.__version__}", f"does not build its {_CLASS}"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about the form of weight norm in it
        net = getattr(diffusers, _CLASS)(
            **{key: value for key, value in values.items() if not key.startswith("_")}
        )
    as_it_lies = file is not None and file.layout == "diffusers" and _takes(net, raw_tensors(file.path))
    if not as_it_lies:
        loadable = {key: torch.tensor(array) for key, array in tensors.items()}
        with explaining(f"diffusers {diffusers.__version__}", f"its {_CLASS} does not take these weights"):
            net.load_state_dict(loadable, strict=True)
    return _Oobleck(net, tells_std=config.std_offset == STD_OFFSET).eval(), as_it_lies


def _takes(net: nn.Module, tensors: Mapping[str, np.ndarray]) -> bool:
    try:
        net.load_state_dict({key: torch.tensor(array) for key, array in tensors.items()}, strict=True)
    except RuntimeError:
        return False
    return True


def _diffusers() -> types.ModuleType:
    try:
        import diffusers

        found = hasattr(diffusers, _CLASS)  # which imports it: that may fail by itself
    except ModuleNotFoundError as error:
        raise UserError(
            f"--reference diffusers needs {error.name}, which is not installed; run: pip install diffusers"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"diffusers cannot be used ({reason(error)}); run: pip install --upgrade diffusers"
        ) from None
    if not found:
        raise UserError(
            f"diffusers {diffusers.__version__} has no {_CLASS}; run: pip install --upgrade diffusers"
        )
    return diffusers


class _Oobleck(nn.Module):
    """The class with the attributes that the comparison reads of the port."""

    def __init__(self, net: Any, *, tells_std: bool):
        super().__init__()
        self.net = net
        self.encoder = _Half(net.encoder, self._encode)
        self.decoder = _Half(net.decoder, self.decode)
        self._posterior: Any = None
        # Its own adds 1e-4 always, which is nothing to compare with where the model adds something else.
        self.std = self._std if tells_std else None

    def decode(self, latents: Tensor) -> Tensor:
        """Audio `[B, C, T]` for latents `[B, D, N]`."""
        return self.net.decode(latents).sample

    def _encode(self, audio: Tensor) -> Tensor:
        self._posterior = self.net.encode(audio).latent_dist
        return self._posterior.parameters

    def _std(self, _: Tensor) -> Tensor:
        return self._posterior.std


class _Half(nn.Module):
    """Encoder or decoder with its layers in the published order; a call goes through the class's method."""

    def __init__(self, half: Any, call: Any):
        super().__init__()
        self.layers = nn.ModuleList((half.conv1, *half.block, half.snake1, half.conv2))
        self._call = call

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)
