"""What an output says about the model and settings that made it: no other run takes it for its own."""

from pathlib import Path

from earvae_jax.audio.writer import read_comment

_MARK = "earvae-jax: "


def made_with(model_fingerprint: str, *settings: str) -> str:
    """A model and settings in words."""
    return f"model {model_fingerprint[:12]} ({', '.join(settings)})"


def comment(maker: str) -> str:
    """For the metadata of an audio file."""
    return f"{_MARK}{maker}"


def audio_maker(path: str | Path) -> str:
    """What an existing audio file says; "" where it says nothing."""
    text = read_comment(path)
    return text.removeprefix(_MARK) if text.startswith(_MARK) else ""
