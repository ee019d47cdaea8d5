"""`earvae benchmark`: measure speed and memory on this machine, against PyTorch if it is installed."""

import argparse
from collections.abc import Callable

_DEFAULT_CONFIG = "ear_vae_44k"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="MODEL", help="the model to measure")
    model.add_argument(
        "--config", metavar="JSON", help=f"random weights of this config; default: {_DEFAULT_CONFIG}"
    )
    parser.add_argument(
        "--seconds", type=_positive(float), default=20.0, help="length of the audio; default: 20"
    )
    parser.add_argument("--repeats", type=_positive(int), default=5, help="rounds to measure; default: 5")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "tf32", "bfloat16"),
        help="number format of both sides",
    )
    parser.add_argument(
        "--skip-compile", action="store_true", help="leave out torch.compile, which takes minutes to start"
    )
    parser.add_argument(
        "--with-plain", action="store_true", help="also measure the formulation that a CPU does not take"
    )
    parser.add_argument("--json", metavar="OUT", help="also write the measurements to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints a table; returns the exit status."""
    import json
    import os
    import sys
    from importlib import resources
    from pathlib import Path

    # JAX would take most of a GPU at its start and leave too little to torch.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from flax import nnx

    from earvae_jax import checkpoints
    from earvae_jax.errors import UserError
    from earvae_jax.infer.benchmark.measure import measure
    from earvae_jax.model.config import ModelConfig
    from earvae_jax.model.vae import EarVAE
    from earvae_jax.parameters import check_fits_in_memory
    from earvae_jax.system.atomic import replacing
    from earvae_jax.system.compilation_cache import OFF, enable_compilation_cache
    from earvae_jax.system.heap import use_one_heap

    # The measured commands do this too. Their other settings could slow torch down in this process.
    use_one_heap()
    enable_compilation_cache(OFF)  # the time to compile is measured
    if arguments.checkpoint:
        name, model = Path(arguments.checkpoint).name, checkpoints.load(arguments.checkpoint)
    else:
        path = arguments.config or resources.files("earvae_jax.configs") / f"{_DEFAULT_CONFIG}.json"
        name, config = Path(str(path)).stem, ModelConfig.from_json(Path(str(path)))
        try:
            check_fits_in_memory(config)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        model = EarVAE(config, rngs=nnx.Rngs(0))
    result = measure(
        model,
        name=name,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        dtype=arguments.dtype,
        with_compile=not arguments.skip_compile,
        with_plain=arguments.with_plain,
    )
    sys.stdout.write(result.table())
    if arguments.json:
        try:
            with replacing(arguments.json) as temporary:
                temporary.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{arguments.json}: cannot be written: {error.strerror or error}") from None
    return 0


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    parse.__name__ = kind.__name__  # argparse shows this name if the text is not a number
    return parse
