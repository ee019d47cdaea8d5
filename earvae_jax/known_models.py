"""The models that have a name here: where their weights are, and under which licence."""

import dataclasses
import difflib
import functools
import os
from importlib import resources
from pathlib import Path, PurePosixPath

from absl import logging

from earvae_jax.borders import exists
from earvae_jax.model.config import ModelConfig

# What begins the name of a weights file, and not that of a model.
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".pyt", ".bin", ".json")


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A published autoencoder on the Hugging Face Hub."""

    name: str  # what stands for it wherever a checkpoint or a source of weights is asked for
    config_name: str  # of the JSON in `configs/` with its shape
    address: str  # of the weights
    config_file: str | None  # the JSON in the same folder of the repository that describes them
    licence: str  # of the weights
    is_gated: bool = False  # whether the Hub gives them only to accounts that accepted the licence

    @property
    def config(self) -> ModelConfig:
        """Its shape; whether units of the encoder have one or two activations, its weights decide."""
        return bundled_config(self.config_name)

    @property
    def needs_torch(self) -> bool:
        """Whether only PyTorch reads its weights."""
        return not self.address.endswith(".safetensors")

    @property
    def page(self) -> str:
        """Of its repository, where a licence is accepted."""
        owner, repo = self.address.removeprefix("hf://").split("/")[:2]
        return f"https://huggingface.co/{owner}/{repo}"


_STABILITY, _NON_COMMERCIAL = "Stability AI Community", "CC BY-NC 4.0 (non-commercial)"
KNOWN_MODELS = (
    KnownModel(
        "ear-vae-44k",
        "ear_vae_44k",
        "hf://earlab/EAR_VAE/pretrained_weight/ear_vae_44k.pyt",
        None,
        "Apache-2.0",
    ),
    KnownModel(
        "ear-vae-48k",
        "ear_vae_v2_48k",
        "hf://earlab/EAR_VAE/pretrained_weight/ear_vae_v2_48k.pyt",
        None,
        "Apache-2.0",
    ),
    KnownModel(
        "ace-step-1.5",
        "ace_step_1.5",
        "hf://ACE-Step/Ace-Step1.5/vae/diffusion_pytorch_model.safetensors",
        "config.json",
        "MIT",
    ),
    KnownModel(
        "stable-audio-open-1.0",
        "stable_audio_open",
        "hf://stabilityai/stable-audio-open-1.0/vae/diffusion_pytorch_model.safetensors",
        "config.json",
        _STABILITY,
        is_gated=True,
    ),
    KnownModel(
        "stable-audio-open-small",
        "stable_audio_open",
        "hf://stabilityai/stable-audio-open-small/model.safetensors",
        "model_config.json",
        _STABILITY,
        is_gated=True,
    ),
    KnownModel(
        "tangoflux",
        "stable_audio_open",
        "hf://declare-lab/TangoFlux/vae.safetensors",
        None,  # its config.json is the generator's
        f"{_STABILITY}; research only",
    ),
    KnownModel("yue2", "yue2", "hf://m-a-p/YuE2-Vae/model.safetensors", "config.json", _NON_COMMERCIAL),
    KnownModel(
        "yue2-legacy", "yue2", "hf://m-a-p/YuE2-Vae-legacy/model.safetensors", "config.json", _NON_COMMERCIAL
    ),
)


def by_name(source: object) -> KnownModel | None:
    """The known model that a path or text names; None for a file or folder, which comes first."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    name = os.fspath(source)
    known = next((known for known in KNOWN_MODELS if known.name == name), None)
    if known is not None and exists(known.name):
        _say_that_a_file_comes_first(known.name)
        return None
    return known


def advice(source: str | os.PathLike[str]) -> str:
    """What to add to the message that there is no such file, where a known model may be meant."""
    name = os.fsdecode(source)
    if Path(name).name != name or PurePosixPath(name).suffix in _FILES:
        return ""
    letters = {_letters(known.name): known.name for known in KNOWN_MODELS}
    close = difflib.get_close_matches(_letters(name), letters, n=1)
    meant = f", nor a known model: did you mean {letters[close[0]]}?" if close else ", nor a known model;"
    return f"{meant} earvae models lists them"


@functools.cache
def bundled_config(name: str) -> ModelConfig:
    """The config in a JSON of `configs/`."""
    with resources.as_file(resources.files("earvae_jax.configs") / f"{name}.json") as path:
        return ModelConfig.from_json(path)


@functools.cache  # a name is resolved several times on its way
def _say_that_a_file_comes_first(name: str) -> None:
    logging.info("%s: taking what has this name in the working directory, not the known model", name)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
