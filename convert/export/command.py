"""`earvae export`: a model for programs that do not have this package."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to write, and for what."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what --checkpoint takes elsewhere")
    parser.add_argument("output", metavar="OUT", help="folder to write")
    parser.add_argument(
        "--format",
        default="stablehlo",
        choices=("stablehlo", "onnx", "both"),
        help="stablehlo: for JAX, by default; onnx: for ONNX Runtime. Each needs the extra of its name",
    )
    parser.add_argument(
        "--platforms",
        nargs="+",
        default=["cpu", "cuda", "tpu"],
        choices=("cpu", "cuda", "tpu", "rocm"),
        help="what the StableHLO programs run on; by default cpu, cuda and tpu",
    )
    parser.add_argument(
        "--opset", type=int, default=18, metavar="N", help="of the ONNX models, from 18, the default, to 23"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing export")


def run(arguments: argparse.Namespace) -> int:
    """Exports, says what was written and how far it is from the model; returns the exit status."""
    from absl import logging

    from earvae_jax.borders import shown
    from earvae_jax.convert.export.folder import export

    written = export(
        arguments.checkpoint,
        arguments.output,
        format=arguments.format,
        platforms=arguments.platforms,
        opset=arguments.opset,
        overwrite=arguments.overwrite,
    )
    if arguments.format != "onnx" and "stablehlo" not in written.agreements:
        logging.info("StableHLO: not run here, as no platform of it is this machine's")
    for kind, agreement in written.agreements.items():
        logging.info(
            "%s: at most %.1e from the model, at %s latents",
            f"ONNX, opset {arguments.opset}" if kind == "onnx" else "StableHLO",
            agreement.distance,
            ", ".join(map(str, agreement.latents)),
        )
    for name, size in written.sizes.items():
        logging.info("%s: %s", name, f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB")
    logging.info("wrote %s", shown(arguments.output))
    return 0
