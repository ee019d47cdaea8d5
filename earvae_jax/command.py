"""The `earvae` command: finds the subcommand, parses its flags, and turns errors into one line and a status.

Exit status: 0 all done; 1 some file failed, the others are done; 2 the call itself is wrong, or the program
failed.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from logging import INFO, LogRecord
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from absl.flags import argparse_flags

from earvae_jax.borders import explained, one_line, reason
from earvae_jax.errors import UserError, is_out_of_memory
from earvae_jax.system.known_faults import keep_transforms_from_hanging

# Each module offers add_arguments(parser) and run(arguments) -> exit status; only run imports what is slow
# to import.
_SUBCOMMANDS = {
    "reconstruct": ("earvae_jax.infer.commands.reconstruct", "encode and decode audio files"),
    "encode": ("earvae_jax.infer.commands.encode", "write the latents of audio files"),
    "decode": ("earvae_jax.infer.commands.decode", "write the audio of latent files"),
    "evaluate": ("earvae_jax.infer.commands.evaluate", "compare reconstructions with originals, in a report"),
    "train": ("earvae_jax.train.command", "train or fine-tune a model"),
    "convert": ("earvae_jax.convert.command", "move weights between PyTorch and JAX"),
    "export": ("earvae_jax.convert.export.command", "write a model for programs without this package"),
    "parity": ("earvae_jax.convert.parity.command", "prove that PyTorch and JAX compute the same"),
    "benchmark": ("earvae_jax.infer.benchmark.command", "measure speed and memory on this machine"),
    "models": ("earvae_jax.convert.models_command", "list the published models that have a name"),
    "push": ("earvae_jax.convert.push.command", "publish a checkpoint on the Hugging Face Hub"),
    "demo": ("earvae_jax.infer.web_app.command", "serve a page to hear and see what a model makes of a song"),
    "info": ("earvae_jax.infer.commands.info", "print what a checkpoint or a collection of latents holds"),
}
_LESS_MEMORY = "a smaller --batch-size, --dtype bfloat16 or shorter files take less"
# Of its options `shard_state` alone may change in a run that has a checkpoint.
_LESS_MEMORY_IN_TRAINING = (
    "shard_state=true on several devices takes less; so do a smaller data.batch_size, a larger accumulate "
    "and rematerialize=true, in another --workdir if this one has a checkpoint; --compile-for shows what fits"
)
_INTERRUPTED, _TERMINATED = 130, 143  # 128 + SIGINT, 128 + SIGTERM, as shells report them


def main() -> None:
    """Entry point of the `earvae` script."""
    app.run(_run, argv=["earvae", *sys.argv[1:]], flags_parser=_parse)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    arguments = [_with_home(word) for word in argv[1:]]
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


def _with_home(word: str) -> str:
    """Expands `~` to the home folder, also after `--flag=` and `KEY=`, where shells do not."""
    flag, equals, value = word.rpartition("=")
    if not value.startswith("~"):
        return word
    with contextlib.suppress(RuntimeError):  # no such user
        value = str(Path(value).expanduser())
    return flag + equals + value


def _unforeseen(error: Exception, less_memory: str) -> str:
    text = explained(error)
    wanted = os.environ.get("JAX_PLATFORMS")
    if wanted and not _has_devices():  # each version of JAX words this error differently
        return f"JAX finds no device for JAX_PLATFORMS={wanted}: unset it, or install the extra for it"
    if is_out_of_memory(error):
        return f"out of memory: {reason(error)}; {less_memory}"
    return f"{text} (unforeseen: EARVAE_DEBUG=1 shows where; please report it)"


def _has_devices() -> bool:
    import jax

    try:
        return bool(jax.devices())
    except Exception:  # noqa: BLE001 - whether it raises is the question
        return False


def run_program(program: Callable[[], int | None], *, less_memory: str = _LESS_MEMORY) -> NoReturn:
    """Runs a program to its exit status (None is 0); each error it ends with is one line on stderr.

    `less_memory` says what to do where the memory does not suffice.

    What `earvae` and every `python -m earvae_jax…` run in: log lines without their origin, SIGTERM and Ctrl-C
    with the statuses of a shell, tracebacks with EARVAE_DEBUG=1 alone.
    """
    if not flags.FLAGS.is_parsed():  # or absl says that it logs before flags are parsed
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.DEBUG if os.environ.get("EARVAE_DEBUG") else logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Line())
    handler.addFilter(_is_ours_or_serious)
    signal.signal(signal.SIGTERM, _terminate)
    keep_transforms_from_hanging()
    try:
        status = program() or 0
    except UserError as error:
        logging.error("%s", error)
        status = 2
    except Exception as error:  # noqa: BLE001 - no user should be left with a traceback
        logging.error("%s", _unforeseen(error, less_memory))
        logging.debug("", exc_info=True)
        status = 1 if is_out_of_memory(error) else 2
    except _TerminatedError:
        logging.error("terminated; finished outputs are kept, and the same command continues")
        status = _TERMINATED
    except KeyboardInterrupt:
        logging.error("interrupted; finished outputs are kept, and the same command continues")
        status = _INTERRUPTED
    sys.exit(status)


def _run(arguments: argparse.Namespace) -> NoReturn:
    module, _ = _SUBCOMMANDS[arguments.command]
    less_memory = _LESS_MEMORY_IN_TRAINING if arguments.command == "train" else _LESS_MEMORY
    run_program(lambda: importlib.import_module(module).run(arguments), less_memory=less_memory)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError


def _is_ours_or_serious(record: LogRecord) -> bool:
    """Drops log lines of JAX and Orbax about ordinary work, and Orbax's about a damaged checkpoint."""
    if not _own_folders().isdisjoint(Path(record.pathname).parents):
        return True
    told_by_us = record.name == "asyncio" or "/orbax/" in record.pathname
    return record.levelno > INFO and not told_by_us


@functools.cache
def _own_folders() -> frozenset[Path]:
    # The applications are beside the library in a checkout, and inside it in an installed package.
    rooms = (f"{__package__}.{name}" for name in ("convert", "train", "infer"))
    specs = (importlib.util.find_spec(name) for name in (str(__package__), *rooms))
    return frozenset(Path(spec.origin).parent for spec in specs if spec and spec.origin)


class _Parser(argparse_flags.ArgumentParser):
    """Says what is wrong with a call in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


class _Line(logging.PythonFormatter):
    """Formats a message; a warning or an error is one line that begins with its level."""

    def format(self, record: LogRecord) -> str:
        message = record.getMessage()
        if record.levelno < INFO:
            trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
            return f"debug: {message}{trace}"
        return message if record.levelno == INFO else f"{record.levelname.lower()}: {one_line(message)}"
