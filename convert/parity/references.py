"""What JAX is compared with: the port, diffusers' own class, or the published code in a clone."""

import dataclasses
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import jax
import numpy as np
import torch

from earvae_jax.convert.parity import diffusers_class, published_code
from earvae_jax.convert.parity.given import Given
from earvae_jax.convert.torch_port import model as torch_port


@dataclasses.dataclass(frozen=True)
class Reference:
    """A model in PyTorch with the given weights."""

    kind: str  # port, diffusers or published code
    described: str
    version: str | None  # of the program that it is part of, if that tells it
    module: Any

    def in_words(self) -> str:
        """One line, with the versions of both sides."""
        return f"{self.described}, in torch {torch.__version__}; JAX {jax.__version__}"


def of_published_code(clone: str, given: Given) -> Reference:
    """The published code in the user's clone of it."""
    module = published_code.build(clone, given.config, _tensors(given))
    return Reference("published code", f"the published code in {clone}", None, module)


def of_port(given: Given) -> Reference:
    """The port in this package."""
    version = metadata.version("earvae-jax")
    module = torch_port.build(given.config, _tensors(given))
    return Reference("port", f"the port in earvae-jax {version}", version, module)


def of_diffusers(given: Given) -> Reference:
    """diffusers' own class."""
    version = diffusers_class.version()
    module, as_it_lies = diffusers_class.build(given.config, given.state, given.file)
    how = "which loaded the file itself" if as_it_lies else "given the weights in its layout"
    return Reference("diffusers", f"AutoencoderOobleck of diffusers {version}, {how}", version, module)


KINDS: dict[Literal["port", "diffusers"], Callable[[Given], Reference]] = {
    "port": of_port,
    "diffusers": of_diffusers,
}


def _tensors(given: Given) -> dict[str, torch.Tensor]:
    # A checkpoint's arrays may be read-only, which torch does not know.
    return {
        key: torch.from_numpy(np.require(tensor, requirements="W")) for key, tensor in given.state.items()
    }
