"""Flags that the commands on files share."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line must not wait for JAX
    from earvae_jax.infer.codec import Codec

_DEMO_MODEL = (
    "no --checkpoint given: this is the bundled demo model, small and trained on synthetic music. "
    "For real quality convert the published weights:\n  earvae convert from-torch "
    "hf://earlab/EAR_VAE/pretrained_weight/ear_vae_44k.pyt checkpoints/ear_vae_44k"
)


def add_codec_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, on which devices, how."""
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="a converted or trained model; default: the demo model"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "tf32", "bfloat16"),
        help="float32 is exact; tf32 rounds products on NVIDIA GPUs; bfloat16 is fastest on accelerators",
    )
    parser.add_argument(
        "--batch-size", default="auto", type=_batch_size, metavar="N", help="windows at a time; default: auto"
    )
    parser.add_argument("--devices", type=_positive, metavar="N", help="local devices to use; default: all")
    parser.add_argument("--overwrite", action="store_true", help="make outputs anew that exist already")
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="for compiled programs, or off; default: $EARVAE_CACHE_DIR or the user's cache folder",
    )


def join_processes(arguments: argparse.Namespace) -> tuple[int, int]:
    """This process's index and their number; before JAX starts its threads, which are to share one heap."""
    from earvae_jax.system.heap import keep_large_arrays_outside, use_one_heap
    from earvae_jax.system.processes import join

    use_one_heap()
    keep_large_arrays_outside()
    return join(arguments)


def open_codec(arguments: argparse.Namespace) -> "Codec":
    """The codec that the flags describe."""
    import jax
    from absl import logging

    from earvae_jax import demo
    from earvae_jax.errors import UserError
    from earvae_jax.infer.codec import Codec
    from earvae_jax.system.compilation_cache import enable_compilation_cache

    enable_compilation_cache(arguments.compilation_cache)
    devices = jax.local_devices()
    if arguments.devices is not None:
        if arguments.devices > len(devices):
            raise UserError(f"--devices {arguments.devices}: this machine has {len(devices)}")
        devices = devices[: arguments.devices]
    if arguments.checkpoint is None and demo.MODEL.exists():
        logging.info("%s", _DEMO_MODEL)
    return Codec.load(
        arguments.checkpoint, dtype=arguments.dtype, batch_size=arguments.batch_size, devices=devices
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How audio is read; `reading_options` gives it to `AudioReader`."""
    parser.add_argument(
        "--channels",
        default="stereo",
        choices=("stereo", "strict"),
        help="stereo: more than two channels are mixed down (ITU-R BS.775); strict: they are refused",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="files that are damaged, cut short, change in the middle or are not as long as they say "
        "fail, instead of giving what can be read with a warning",
    )


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `AudioReader`."""
    return {"channels": arguments.channels, "strict": arguments.strict}


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Which latents are decoded."""
    parser.add_argument(
        "--latent",
        default="mean",
        choices=("mean", "sample"),
        help="decode the mean (the same every time) or a sample",
    )
    parser.add_argument("--seed", default=0, type=int, help="of the samples; default: 0")


def sampling_words(arguments: argparse.Namespace) -> str:
    """Which latents are decoded, as outputs say it."""
    return "mean" if arguments.latent == "mean" else f"sample, seed {arguments.seed}"


def add_audio_output_arguments(parser: argparse.ArgumentParser) -> None:
    """How audio is written."""
    parser.add_argument(
        "--format", default="wav", choices=("wav", "flac"), help="wav: 32-bit float; flac: 24 bits"
    )


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else _positive(text)
