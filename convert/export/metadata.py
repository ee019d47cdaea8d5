"""What an exported model says about itself: rate and sizes, origin, and how windows stay exact."""

from importlib import metadata
from typing import Any

from earvae_jax.checkpoints import CheckpointInfo
from earvae_jax.known_models import KNOWN_MODELS
from earvae_jax.model.lengths import samples_of
from earvae_jax.receptive_field import decoder_context, encoder_context, encoder_reach

FORMAT_VERSION = 1

_WINDOWS = (
    "Pad the audio with zeros at its end to N·downsampling_ratio samples, where N is the fewest latents with "
    "N·downsampling_ratio − decoder.samples_fewer samples or more.",
    "Encoder: for the latents from a to b of a file of N, run it on the samples of those from "
    "max(0, a − left) to min(N, b + right), with left and right of encoder.context_latents, "
    "and keep the latents from a to b.",
    "Transformer, where there is one: run it once, on all latents of the file. It is not exact in windows.",
    "Decoder: for the samples of the latents from a to b, run it on the latents from max(0, a − left) to "
    "min(N, b + right), with left and right of decoder.context_latents, and keep the samples of a to b.",
    "Cut the audio to its length. A window that begins or ends with the file is exact up to its edge.",
)


def describe(info: CheckpointInfo, name: str) -> dict[str, Any]:
    """The facts of a model that a program in another runtime needs, as JSON holds them.

    Of the provenance only names are kept: no path, no configuration of a training run.
    """
    config, transformer = info.config, info.config.transformer
    encoder, decoder = encoder_context(config), decoder_context(config)
    ratio = config.downsampling_ratio
    nearest = config.decoder.use_nearest_upsample
    return {
        "format": "earvae-jax export",
        "format_version": FORMAT_VERSION,
        "model": {"name": name, "fingerprint": info.fingerprint, **_origin(info)},
        "sample_rate": config.sample_rate,
        "downsampling_ratio": ratio,
        "channels": config.io_channels,
        "latent_dim": config.latent_dim,
        "std_offset": config.std_offset,
        "encoder": {
            "receptive_field_samples": encoder_reach(config.encoder)._asdict(),
            "context_latents": encoder._asdict(),
        },
        "transformer": transformer
        and {
            "receptive_field": "all latents of the file",
            "most_latents": transformer.abs_pos_emb_max_length if transformer.use_abs_pos_emb else None,
        },
        "decoder": {
            "receptive_field_latents": decoder._asdict(),
            "context_latents": decoder._asdict(),
            # Odd strides lose a few samples at the end of what they make, whatever the length.
            "samples_fewer": ratio - samples_of(1, config.decoder.strides, nearest=nearest),
        },
        "windows": list(_WINDOWS),
        "config": config.to_dict(),
        "versions": {package: metadata.version(package) for package in ("earvae-jax", "jax")},
    }


def _origin(info: CheckpointInfo) -> dict[str, Any]:
    """Names alone; the licence of the weights where they are a known model's."""
    source, published = (info.provenance.get(key) for key in ("source", "published_name"))
    known = next((k for k in KNOWN_MODELS if source == k.address or published == k.config_name), None)
    return {"source": source, "published_name": published, "licence": known and known.licence}
