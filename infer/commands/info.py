"""`earvae info`: print what a checkpoint, or a collection of latents, holds."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="a model as --checkpoint takes it, or latents: file, shard or folder; default: the demo model",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints as JSON a model's config, sizes, receptive fields and provenance, or what latents are like."""
    import json
    import math
    import re
    import sys

    from earvae_jax.checkpoints import read_info
    from earvae_jax.infer.latent_sets.collection import open_latents
    from earvae_jax.infer.latent_sets.summaries import summary
    from earvae_jax.parameters import expected_arrays
    from earvae_jax.receptive_field import decoder_reach, encoder_reach

    if arguments.checkpoint is not None and _is_of_latents(arguments.checkpoint):
        text = json.dumps(summary(open_latents(arguments.checkpoint)), indent=2)
        # A list of numbers is one line, not sixty-four.
        text = re.sub(r"\[[^][]*\]", lambda found: " ".join(found[0].split()), text)
        sys.stdout.write(text + "\n")
        return 0
    info = read_info(arguments.checkpoint)
    config = info.config
    arrays = expected_arrays(config)
    sizes = {
        half: sum(math.prod(array.shape) for name, array in arrays.items() if name.startswith(half))
        for half in ("encoder", "transformers", "decoder")
    }
    described = {
        **info.to_dict(),
        "parameters": {**sizes, "total": sum(sizes.values())},
        "latent_rate_hz": config.sample_rate and config.sample_rate / config.downsampling_ratio,
        "receptive_field": {
            "encoder_samples": encoder_reach(config.encoder)._asdict(),
            "decoder_latents": decoder_reach(config.decoder)._asdict(),
        },
    }
    sys.stdout.write(json.dumps(described, indent=2) + "\n")
    return 0


def _is_of_latents(place: str) -> bool:
    from pathlib import Path

    from earvae_jax.borders import exists, explaining, shown
    from earvae_jax.checkpoints import is_checkpoint, is_of_torch
    from earvae_jax.errors import UserError
    from earvae_jax.infer.latent_sets.collection import holds_latents

    if not exists(place) or is_checkpoint(place) or is_of_torch(Path(place)):
        return False
    path = Path(place)
    with explaining(path, "cannot be read"):
        if holds_latents(path):
            return True
        below = [each for each in path.iterdir() if holds_latents(each)] if path.is_dir() else []
    if below:
        raise UserError(f"{shown(path)}: its folders hold latents: name one of them, as {shown(min(below))}")
    return False
