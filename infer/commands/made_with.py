"""Outputs record the model and settings that made them, so that no other run takes them for its own."""

import json
from pathlib import Path

import numpy as np

from earvae_jax.audio.writer import read_comment

_MARK = "earvae-jax: "


def made_with(model_fingerprint: str, *settings: str) -> str:
    """The model and settings in words, as outputs record them."""
    return f"model {model_fingerprint[:12]} ({', '.join(settings)})"


def latents_in_words(dtype: str, *, with_std: bool) -> str:
    """What a latent file holds, in words."""
    return f"{dtype} {'latents' if with_std else 'means'}"


def comment(maker: str) -> str:
    """The comment that goes into the metadata of an audio file."""
    return f"{_MARK}{maker}"


def audio_maker(path: str | Path) -> str:
    """What an existing audio file says made it; "" if it says nothing."""
    text = read_comment(path)
    return text.removeprefix(_MARK) if text.startswith(_MARK) else ""


def latent_maker(path: str | Path) -> str:
    """What an existing latent file says made it; "" if it says nothing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            described = json.loads(str(file["metadata"]))
            stored = described.get("latent_dtype") or file["mean"].dtype
            held = latents_in_words(str(stored), with_std="std" in file)
        return made_with(described["model"], described["compute_dtype"], held)
    except Exception:  # noqa: BLE001 - whatever it is: this is no latent file of this project
        return ""
