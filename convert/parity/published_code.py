"""Runs the published PyTorch code from the user's own clone, in place of the port."""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from earvae_jax.convert.torch_port.layers import AntialiasedActivation
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig

_ENTRY = Path("model", "ear_vae.py")  # defines EAR_VAE


def build(clone: str | Path, config: ModelConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """The published `EAR_VAE` with these weights, in evaluation mode; this runs the clone's code.

    The code imports a few layers from `descript-audio-codec` (`dac`) and `alias-free-torch`. Stand-ins
    replace these packages if they are not installed.

    Raises:
      UserError: there is no clone, a package that it needs is missing, or it refuses config or weights.
    """
    clone = Path(clone)
    if not (clone / _ENTRY).is_file():
        raise UserError(f"{clone}: holds no {_ENTRY}; pass a clone of the published EAR_VAE repository")
    try:
        with _importable(clone):
            model = importlib.import_module("model.ear_vae").EAR_VAE(model_config=_published_form(config))
    except ModuleNotFoundError as error:
        raise UserError(f"{clone}: its code needs {error.name}; install it with pip") from None
    except (ImportError, AttributeError, SyntaxError, TypeError) as error:
        raise UserError(f"{clone}: does not build this model ({_first_line(error)})") from None
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise UserError(f"{clone}: does not take these weights: {reasons}") from None
    return model.eval()


class Snake1d(nn.Module):
    """The activation of `dac.nn.layers`: x + sin²(αx) / (α + 1e-9), α per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha * x).sin() ** 2 / (self.alpha + 1e-9)


def _stand_ins() -> dict[str, ModuleType]:
    """Modules in place of those of the two packages that are not installed."""
    modules: dict[str, Any] = {}
    if importlib.util.find_spec("dac") is None:
        layers: Any = ModuleType("dac.nn.layers")
        modules["dac.nn.layers"] = layers
        layers.Snake1d = Snake1d
        layers.WNConv1d = lambda *args, **kwargs: weight_norm(nn.Conv1d(*args, **kwargs))
        layers.WNConvTranspose1d = lambda *args, **kwargs: weight_norm(nn.ConvTranspose1d(*args, **kwargs))
        modules["dac.nn"], modules["dac"] = ModuleType("dac.nn"), ModuleType("dac")
        modules["dac.nn"].layers, modules["dac"].nn = layers, modules["dac.nn"]
    if importlib.util.find_spec("alias_free_torch") is None:
        modules["alias_free_torch"] = ModuleType("alias_free_torch")
        modules["alias_free_torch"].Activation1d = AntialiasedActivation
    return modules


@contextlib.contextmanager
def _importable(clone: Path) -> Iterator[None]:
    """Lets the clone's modules be imported by their own, very common names, and forgets them afterwards."""
    stand_ins = _stand_ins()
    theirs = {path.stem for path in clone.iterdir()} | {name.partition(".")[0] for name in stand_ins}

    def take() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in theirs]
        return {name: sys.modules.pop(name) for name in names}

    ours = take()
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(clone))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(clone))
        take()
        sys.modules.update(ours)


def _published_form(config: ModelConfig) -> dict[str, Any]:
    """The config as the published JSON has it: options at their defaults are left out."""
    form: dict[str, Any] = {
        "encoder": {"config": _stated(config.encoder)},
        "decoder": {"config": _stated(config.decoder)},
        "latent_dim": config.latent_dim,
        "downsampling_ratio": config.downsampling_ratio,
        "io_channels": config.io_channels,
    }
    if config.transformer is not None:
        options = _stated(config.transformer)
        form["transformer"] = {"depth": options.pop("depth"), "config": options}
    return json.loads(json.dumps(form))  # makes lists of tuples, as the published code adds to them


def _stated(part: Any) -> dict[str, Any]:
    stated = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            stated[field.name] = _stated(value) if dataclasses.is_dataclass(value) else value
    return stated


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
