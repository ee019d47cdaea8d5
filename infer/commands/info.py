"""`earvae info`: print what a checkpoint holds."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="the model, as --checkpoint takes it; default: the demo model",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints config, sizes, receptive fields and provenance as JSON."""
    import json
    import math
    import sys

    from earvae_jax.checkpoints import read_info
    from earvae_jax.parameters import expected_arrays
    from earvae_jax.receptive_field import decoder_reach, encoder_reach

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
