"""The sizes of both versions: the published model and recipe, and narrow ones to try the program with."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

CONFIG = "ear_vae_44k"
RECIPE = "train_44k.json"
DIFFUSERS_CONFIG = "ace_step_1.5"  # one that diffusers' class can be
_NARROWER = 8  # times, in the small version
# What makes the published recipe small, besides the model.
_SMALL_RECIPE = {
    "objective.n_ffts": [512, 128],
    "objective.phase_n_ffts": [512],
    "adversarial.discriminator.n_ffts": [512, 128],
    "adversarial.discriminator.filters": 8,
}


def model_values(name: str, *, small: bool) -> dict[str, Any]:
    """A bundled model config; small, with an eighth of the channels."""
    values = json.loads((resources.files("earvae_jax.configs") / f"{name}.json").read_text(encoding="utf-8"))
    if small:
        for half in ("encoder", "decoder"):
            values[half]["config"]["channels"] //= _NARROWER
        if name == DIFFUSERS_CONFIG:  # its encoder has as many channels as numbers for a latent, always
            _narrow_latents(values)
    return values


def _narrow_latents(values: dict[str, Any]) -> None:
    values["encoder"]["config"]["latent_dim"] //= _NARROWER
    values["decoder"]["config"]["latent_dim"] //= _NARROWER
    values["latent_dim"] //= _NARROWER


def model_config(name: str, work: Path, *, small: bool) -> str:
    """What `--config` takes for a bundled model config, of which the small version is written to `work`."""
    if not small:
        return name
    path = work / f"{name}.json"
    path.write_text(json.dumps(model_values(name, small=True)), encoding="utf-8")
    return str(path)


def recipe_overrides(work: Path, *, small: bool, crop: int, crops: int, dtype: str) -> list[str]:
    """Changes to the published recipe, as `--set` takes them: its discriminator is there from the start."""
    values: dict[str, Any] = {
        "data.crop_samples": crop,
        "data.batch_size": crops,
        "compute_dtype": dtype,
        "adversarial.start_step": 0,
        "adversarial.alone_steps": 0,
        "adversarial.ramp_steps": 0,
    }
    if small:
        values |= {"model": model_config(CONFIG, work, small=True), **_SMALL_RECIPE}
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()
    ]
