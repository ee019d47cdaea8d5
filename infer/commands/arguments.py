"""Flags that the commands share."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from earvae_jax.flag_types import positive, seed

if TYPE_CHECKING:  # the command line must not wait for JAX
    import jax

    from earvae_jax.infer.codec import Codec

_COMPILING = "programs that are not in the cache yet compile first, which can take minutes"
_DEMO_MODEL = (
    "no --checkpoint given: using the bundled demo model, which is small and was trained for a few hours. "
    "For real quality fetch the published weights: --checkpoint ear-vae-44k (earvae models lists others)"
)


def add_codec_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose the model, the devices and the way to compute."""
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="a converted or trained model, a name that earvae models lists, or PyTorch weights that need no "
        "flag to convert; default: the demo model",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "tf32", "bfloat16"),
        help="float32 is exact; tf32 rounds products on NVIDIA GPUs; bfloat16 is for accelerators",
    )
    parser.add_argument(
        "--batch-size",
        default="auto",
        type=_batch_size,
        metavar="N",
        help="windows computed together; default: auto",
    )
    parser.add_argument(
        "--devices", type=positive(int), metavar="N", help="local devices to use; default: all"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist already")
    add_formulation_argument(parser)
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="folder for compiled programs, or off; default: $EARVAE_CACHE_DIR or the user's cache folder",
    )


def add_formulation_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that chooses how encoder and decoder are computed."""
    parser.add_argument(
        "--formulation",
        default="auto",
        choices=("auto", "plain", "chunked", "cudnn", "fused", "tails"),
        help="how encoder and decoder are computed: auto takes the fastest that was measured, on a CPU or an "
        "H200, and on others the leanest that needs no kernels of its own; cudnn is that on a GPU, and tails "
        "and fused have such kernels",
    )


def join_processes(arguments: argparse.Namespace) -> tuple[int, int]:
    """Joins the processes of a run; returns this one's index and their number.

    Call it before JAX starts its threads, so that they share one heap.
    """
    from earvae_jax.system.heap import keep_large_arrays_outside, use_one_heap
    from earvae_jax.system.processes import join

    use_one_heap()
    keep_large_arrays_outside()
    return join(arguments)


def open_codec(arguments: argparse.Namespace) -> "Codec":
    """The codec that the flags describe."""
    import jax
    from absl import logging

    from earvae_jax.system.compilation_cache import enable_compilation_cache

    enable_compilation_cache(arguments.compilation_cache)
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        logging.info("%s", _COMPILING)
    return codec_on(devices, arguments)


def codec_on(devices: "Sequence[jax.Device]", arguments: argparse.Namespace) -> "Codec":
    """The codec that the flags describe, on the first of some devices."""
    from absl import logging

    from earvae_jax import demo
    from earvae_jax.errors import UserError
    from earvae_jax.infer.codec import Codec
    from earvae_jax.targets.devices import is_described

    if arguments.devices is not None:
        if arguments.devices > len(devices):
            place = "the target" if is_described(devices[0]) else "this machine"
            raise UserError(f"--devices {arguments.devices}: {place} has {len(devices)}")
        devices = devices[: arguments.devices]
    if arguments.checkpoint is None and demo.MODEL.exists():
        logging.info("%s", _DEMO_MODEL)
    return Codec.load(
        arguments.checkpoint,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        devices=devices,
        formulation=arguments.formulation,
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for reading audio; `reading_options` hands them to `AudioReader`."""
    parser.add_argument(
        "--channels",
        default="stereo",
        choices=("stereo", "strict"),
        help="stereo mixes more than two channels down (ITU-R BS.775); strict refuses them",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail on files that are damaged, cut short, change in the middle or are not as long as they "
        "say, instead of warning and using what can be read",
    )


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `AudioReader` that the flags give."""
    return {"channels": arguments.channels, "strict": arguments.strict}


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose which latents are decoded."""
    parser.add_argument(
        "--latent",
        default="mean",
        choices=("mean", "sample"),
        help="decode the mean (the same every time) or a sample",
    )
    parser.add_argument("--seed", default=0, type=seed, help="seed of the samples; default: 0")


def sampling_words(arguments: argparse.Namespace) -> str:
    """The choice of latents in words, as outputs record it."""
    return "mean" if arguments.latent == "mean" else f"sample, seed {arguments.seed}"


def add_audio_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flag for the output format."""
    parser.add_argument(
        "--format", default="wav", choices=("wav", "flac"), help="wav: 32-bit float; flac: 24 bits"
    )


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else positive(int)(text)
