"""The `earvae` command: finds the subcommand, parses its flags, turns errors into one line and a status.

Exit status: 0 all done; 1 some file failed, the others are done; 2 the call itself is wrong.
"""

import argparse
import functools
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from logging import INFO, LogRecord
from pathlib import Path
from typing import NoReturn

from absl import app, logging
from absl.flags import argparse_flags

from earvae_jax.errors import UserError
from earvae_jax.known_faults import keep_transforms_from_hanging

# Each module offers add_arguments(parser) and run(arguments) -> exit status; what is heavy to import waits
# until run.
_SUBCOMMANDS = {
    "reconstruct": ("earvae_jax.infer.reconstruct_command", "encode and decode audio files"),
    "encode": ("earvae_jax.infer.encode_command", "write the latents of audio files"),
    "decode": ("earvae_jax.infer.decode_command", "write the audio of latent files"),
    "evaluate": ("earvae_jax.infer.evaluate_command", "compare reconstructions with originals; a report"),
    "train": ("earvae_jax.train.command", "train or fine-tune a model"),
    "convert": ("earvae_jax.convert.command", "move weights between PyTorch and JAX"),
    "parity": ("earvae_jax.convert.parity_command", "prove that PyTorch and JAX compute the same"),
    "benchmark": ("earvae_jax.infer.benchmark_command", "measure speed and memory on this machine"),
    "info": ("earvae_jax.infer.info_command", "print a checkpoint's config, sizes and provenance"),
}
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Entry point of the `earvae` script."""
    app.run(_run, argv=["earvae", *sys.argv[1:]], flags_parser=_parse)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    arguments = argv[1:]
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser = _Parser(
        prog="earvae",
        description="εar-VAE in JAX: encode, decode, evaluate and train on 44.1/48 kHz stereo music.",
        epilog="earvae COMMAND --help explains a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in _SUBCOMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        subparser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        if name == chosen:
            importlib.import_module(module).add_arguments(subparser)
    return parser.parse_args(arguments)


def _run(arguments: argparse.Namespace) -> None:
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Line())
    handler.addFilter(_is_ours_or_serious)
    module, _ = _SUBCOMMANDS[arguments.command]
    keep_transforms_from_hanging()
    try:
        status = importlib.import_module(module).run(arguments)
    except UserError as error:
        logging.error("%s", error)
        status = 2
    except KeyboardInterrupt:
        logging.error("interrupted; finished outputs are kept, the same command continues")
        status = _INTERRUPTED
    sys.exit(status)


def _is_ours_or_serious(record: LogRecord) -> bool:
    """Drops what JAX and Orbax tell about their ordinary work."""
    return record.levelno > INFO or Path(record.pathname).parent in _own_folders()


@functools.cache
def _own_folders() -> frozenset[Path]:
    packages = (__package__, *(f"{__package__}.{name}" for name in ("convert", "train", "infer")))
    return frozenset(Path(importlib.util.find_spec(name).origin).parent for name in packages)


class _Parser(argparse_flags.ArgumentParser):
    """Says what is wrong with a call in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Line(logging.PythonFormatter):
    """A message as one line, its level in front where it is not plain information."""

    def format(self, record: LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno <= INFO else f"{record.levelname.lower()}: {message}"
