"""`earvae benchmark`: measure speed and memory on this machine, against PyTorch if it is installed."""

import argparse

from earvae_jax.flag_types import positive
from earvae_jax.targets import command as compiling

_DEFAULT_CONFIG = "ear_vae_44k"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="MODEL", help="the model to measure")
    model.add_argument(
        "--config",
        metavar="JSON",
        help=f"random weights of this config, a file or a bundled one; default: {_DEFAULT_CONFIG}",
    )
    parser.add_argument(
        "--seconds", type=positive(float), default=20.0, help="length of the audio; default: 20"
    )
    parser.add_argument("--repeats", type=positive(int), default=5, help="rounds to measure; default: 5")
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
    parser.add_argument(
        "--formulation",
        default="auto",
        choices=("auto", "plain", "chunked", "cudnn", "fused", "tails"),
        help="how the encoder and decoder measured are computed; default: auto",
    )
    parser.add_argument(
        "--batch-size",
        type=positive(int),
        metavar="N",
        help="windows that the codec computes together; default: as many as the other commands take",
    )
    parser.add_argument(
        "--with-diffusers",
        action="store_true",
        help="also measure diffusers' AutoencoderOobleck over the whole file, for models that it can be",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const=True,
        metavar="OUT",
        help="also write the measurements to this file; without OUT print them in place of the table",
    )
    compiling.add_arguments(parser, own_json=True)


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints a table; returns the exit status."""
    if compiling.is_asked(arguments, own_json=True):
        return compiling.run(arguments, "earvae_jax.infer.benchmark.compile_for:benchmark")

    import os

    # JAX would take most of a GPU at its start and leave too little to torch.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from earvae_jax.infer.benchmark.measure import measure
    from earvae_jax.infer.benchmark.models import named_model
    from earvae_jax.system.compilation_cache import OFF, enable_compilation_cache
    from earvae_jax.system.figures import hand_out
    from earvae_jax.system.heap import use_one_heap

    # The measured commands do this too. Their other settings could slow torch down in this process.
    use_one_heap()
    enable_compilation_cache(OFF)  # the time to compile is measured
    name, model = named_model(arguments.checkpoint, arguments.config)
    result = measure(
        model,
        name=name,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        dtype=arguments.dtype,
        with_compile=not arguments.skip_compile,
        with_plain=arguments.with_plain,
        formulation=arguments.formulation,
        batch_size=arguments.batch_size or "auto",
        with_diffusers=arguments.with_diffusers,
    )
    hand_out(result.table(), result.to_dict(), as_json=arguments.json)
    return 0
