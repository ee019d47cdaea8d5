"""The page that a published model shows: what it is, how it runs, what it was trained on, what it reaches."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from earvae_jax.borders import read_json
from earvae_jax.checkpoints import CheckpointInfo
from earvae_jax.errors import UserError
from earvae_jax.parameters import expected_arrays

# Keys of what `earvae evaluate` writes, and how the page shows them.
_METRICS = {
    "avg_sisdr": ("SI-SDR, dB", "{:.2f}"),
    "avg_per_channel_coherence": ("phase coherence in each channel (ICPC)", "{:.2%}"),
    "avg_interchannel_coherence": ("phase coherence between channels (CCPC)", "{:.2%}"),
    "avg_stft_distance": ("STFT distance", "{:.3f}"),
    "avg_mel_distance": ("mel distance", "{:.3f}"),
}
_TAGS = ["jax", "audio", "music", "autoencoder", "vae", "oobleck"]


def read_metrics(path: Path) -> dict[str, str]:
    """The means of an `evaluation_results.json`, as the page shows them.

    Raises:
      UserError: it cannot be read, or is another JSON.
    """
    results = read_json(path, "metrics")
    count = results.get("file_count") if isinstance(results, dict) else None
    if not isinstance(count, int) or not _METRICS.keys() <= results.keys():
        raise UserError(f"{path}: not the evaluation_results.json that earvae evaluate writes")
    values = {key: results[key] for key in _METRICS}
    if any(value is not None and not isinstance(value, int | float) for value in values.values()):
        raise UserError(f"{path}: a metric in it is no number")
    shown = {
        _METRICS[key][0]: _METRICS[key][1].format(value) for key, value in values.items() if value is not None
    }
    return {**shown, "pieces": str(count)}


def model_card(
    repo: str,
    info: CheckpointInfo,
    *,
    licence: str,
    data: Sequence[str] = (),
    metrics: Mapping[str, str] | None = None,
) -> str:
    """The page in Markdown, with the front matter that the Hub reads.

    Args:
      repo: OWNER/REPO.
      info: the checkpoint's; its provenance tells of training.
      licence: the Hub's name of the weights' licence, such as cc-by-4.0.
      data: lines about what it was trained on, beside those of the provenance.
      metrics: name and value of each line.
    """
    front = ModelCardData(
        license=licence, library_name="earvae-jax", pipeline_tag="audio-to-audio", tags=_TAGS
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {repo.partition('/')[2]}",
        _what(info),
        _use(repo),
        _training(info.provenance, data),
    ]
    if metrics:
        rows = [f"| {name} | {value} |" for name, value in metrics.items()]
        parts.append("\n".join(["## What it reaches", "", "| | mean |", "|---|---|", *rows]))
        parts.append("Measured by `earvae evaluate` on its reconstructions.")
    parts.append(_config(info))
    parts.append(f"Licence of the weights: {licence}. Their fingerprint is `{info.fingerprint}`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(info: CheckpointInfo) -> str:
    config = info.config
    millions = sum(math.prod(array.shape) for array in expected_arrays(config).values()) / 1e6
    channels = {1: "mono", 2: "stereo"}.get(config.io_channels, f"{config.io_channels} channels")
    rate = config.sample_rate
    latents = f"{rate / config.downsampling_ratio:.2f} latents a second" if rate else "its latents"
    kind = "an Oobleck autoencoder" + (" with a transformer before its decoder" if config.transformer else "")
    at_rate = f"at {rate} Hz" if rate else "at a rate that its config does not say"
    return (
        f"{kind[0].upper()}{kind[1:]} for {channels} music {at_rate}: {config.downsampling_ratio} samples "
        f"become one latent of {config.latent_dim} values, {latents}. It has {millions:.1f} M parameters."
    )


def _config(info: CheckpointInfo) -> str:
    written = json.dumps(info.config.to_dict(), indent=2)
    return f"## Config\n\nAs the file holds it.\n\n```json\n{written}\n```"


def _use(repo: str) -> str:
    return (
        "## Use\n\n```sh\npip install earvae-jax\n"
        f"earvae reconstruct song.mp3 --checkpoint hf://{repo}\n```\n\n"
        "```python\nfrom earvae_jax.infer import Codec\n\n"
        f'codec = Codec.load("hf://{repo}")\n'
        'latents = codec.encode("song.mp3")\naudio = codec.decode(latents)\n```'
    )


def _training(provenance: Mapping[str, Any], data: Sequence[str]) -> str:
    lines = []
    if "source" in provenance:
        lines.append(f"Converted from `{provenance['source']}`.")
    if "trained_steps" in provenance:
        lines.append(f"Trained for {provenance['trained_steps']} steps; the file holds the training config.")
    if isinstance(provenance.get("commit"), str):
        lines.append(f"The code was at commit `{provenance['commit']}`.")
    trained_on = [
        f"- {each['package']} {each.get('version', '')}".rstrip()
        + (f", {each['hours']:.2f} h" if "hours" in each else "")
        + (f" ({', '.join(each['licences'])})" if each.get("licences") else "")
        for each in provenance.get("data", ())
    ]
    trained_on += [f"- {line}" for line in data]
    if trained_on:
        lines += ["", "Trained on:", "", *trained_on]
    return "\n".join(["## Training", "", *lines]) if lines else ""
