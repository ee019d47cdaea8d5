"""`earvae convert`: weights from PyTorch, and back."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earvae_jax.convert.config_from_tensors import Stated


WEIGHTS_HELP = (
    ".pyt, .pt, .ckpt or .safetensors, a folder that holds one, hf://OWNER/REPO[/PATH], or a name that "
    "earvae models lists"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the two directions, and the flags of each."""
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    into = directions.add_parser("from-torch", help="PyTorch or safetensors weights to a checkpoint")
    into.add_argument("weights", metavar="WEIGHTS", help=WEIGHTS_HELP)
    into.add_argument("output", metavar="OUT_DIR", help="checkpoint to write")
    add_weights_arguments(into)
    back = directions.add_parser("to-torch", help="a checkpoint to PyTorch weights")
    back.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint to read")
    back.add_argument("output", metavar="OUT.pyt", help="file to write; a folder for the other layouts")
    back.add_argument(
        "--layout",
        default="published",
        choices=("published", "stable-audio-tools", "diffusers"),
        help="published: a bare state dict of torch.save; the others: a folder with safetensors and a JSON",
    )
    for direction in (into, back):
        direction.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that determine the config of a weights file."""
    parser.add_argument("--config", metavar="JSON", help="model config; by default the tensors determine it")
    parser.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="sample rate of a model that is not a published one"
    )
    parser.add_argument(
        "--dim-heads", type=int, metavar="WIDTH", help="width of an attention head, if several widths fit"
    )
    parser.add_argument(
        "--std-offset",
        type=float,
        metavar="X",
        help="what is added to softplus(scale): 0 in εar-VAE, 0.0001 in other published models",
    )
    parser.add_argument(
        "--final-tanh",
        action=argparse.BooleanOptionalAction,
        help="whether the decoder ends in tanh, which the tensors do not show",
    )


def stated_options(arguments: argparse.Namespace) -> "Stated":
    """What the flags of `add_weights_arguments` say."""
    from earvae_jax.convert.config_from_tensors import Stated

    return Stated(arguments.sample_rate, arguments.dim_heads, arguments.final_tanh, arguments.std_offset)


def run(arguments: argparse.Namespace) -> int:
    """Converts; returns the exit status."""
    from absl import logging

    if arguments.direction == "to-torch":
        from earvae_jax.convert.to_torch import export

        export(arguments.checkpoint, arguments.output, layout=arguments.layout, overwrite=arguments.overwrite)
    else:
        from earvae_jax.convert.from_torch import convert

        convert(
            arguments.weights,
            arguments.output,
            config=arguments.config,
            stated=stated_options(arguments),
            overwrite=arguments.overwrite,
        )
    logging.info("wrote %s", arguments.output)
    return 0
