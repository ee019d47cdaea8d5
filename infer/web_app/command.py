"""`earvae demo`: serve the page on this machine."""

import argparse
import os
import sys

from earvae_jax.flag_types import positive

_PATIENCE = 3.0  # seconds for a job to notice that the server was stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="a model to offer first, as other commands take it, beside the bundled and the known ones",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; default: 127.0.0.1, for this machine alone; 0.0.0.0: for every machine",
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="port to listen on; default: the first free one from 7860 on"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "tf32", "bfloat16"),
        help="number format that the page begins with; default: float32",
    )
    parser.add_argument(
        "--max-seconds",
        default=600.0,
        type=positive(float),
        metavar="S",
        help="longest song taken; default: 600",
    )
    parser.add_argument(
        "--max-mb",
        default=200.0,
        type=positive(float),
        metavar="MB",
        help="largest file taken; default: 200",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is interrupted."""
    from earvae_jax.system.heap import keep_large_arrays_outside, use_one_heap

    use_one_heap()
    keep_large_arrays_outside()

    from earvae_jax.infer.web_app.jobs import wait_for_jobs
    from earvae_jax.infer.web_app.limits import Limits
    from earvae_jax.infer.web_app.server import serve

    serve(
        checkpoint=arguments.checkpoint,
        host=arguments.host,
        port=arguments.port,
        dtype=arguments.dtype,
        limits=Limits(seconds=arguments.max_seconds, megabytes=arguments.max_mb),
    )
    if not wait_for_jobs(_PATIENCE):
        # The interpreter would shut down beneath a thread that still measures, and crash.
        sys.stderr.flush()
        os._exit(0)
    return 0


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 0 < number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return number
