"""The flags of `--compile-for`, and what a command does that has them."""

import argparse
from typing import Any

from earvae_jax.errors import UserError
from earvae_jax.flag_types import positive

_TIMEOUT = 1200.0  # seconds


def add_arguments(parser: argparse.ArgumentParser, *, own_json: bool = False) -> None:
    """Declares the flags.

    Args:
      own_json: the command has a flag --json of its own, which names a file.
    """
    group = parser.add_argument_group("compiling for an accelerator that is not here")
    group.add_argument(
        "--compile-for",
        metavar="TARGET",
        help="compile what this call would run for h100, a100, v5e, v5p or v6e, with a count as in h100x8; "
        "print memory, kernels, bytes and the least time they take, and run nothing",
    )
    group.add_argument(
        "--compile-timeout",
        type=positive(float, "seconds"),
        metavar="SECONDS",
        help=f"give a program up that takes longer to compile; default: {_TIMEOUT:.0f}",
    )
    group.add_argument(
        "--skip-largest",
        action="store_true",
        help="do not look for the largest batch that fits, which takes more compilations",
    )
    if not own_json:
        group.add_argument("--json", action="store_true", help="print one JSON object instead")


def is_asked(arguments: argparse.Namespace, *, own_json: bool = False) -> bool:
    """Whether a call asks for compiling alone.

    Raises:
      UserError: it has a flag that goes with --compile-for, but not that.
    """
    if arguments.compile_for is not None:
        return True
    for flag, given in (
        ("--compile-timeout", arguments.compile_timeout is not None),
        ("--skip-largest", arguments.skip_largest),
        ("--json", arguments.json and not own_json),
    ):
        if given:
            raise UserError(f"{flag} goes with --compile-for TARGET")
    return False


def run(arguments: argparse.Namespace, plan: str) -> int:
    """Compiles for the target and prints the report.

    Args:
      plan: MODULE:FUNCTION, which makes a `Plan` of the arguments and devices.

    Returns:
      0 if all of it compiles and fits, else 1.

    Raises:
      UserError: there is no such target, its compiler is not installed, or the call is wrong.
    """
    from earvae_jax.system.figures import hand_out
    from earvae_jax.targets.catalogue import Target
    from earvae_jax.targets.compiling import compile_for
    from earvae_jax.targets.devices import check_compiler, process_variables, usable_memory
    from earvae_jax.targets.report import Report

    target = Target.parse(arguments.compile_for)
    check_compiler(target.accelerator)
    outcome = compile_for(
        target,
        plan,
        _plain(arguments),
        environment=process_variables(target),
        find_largest=not arguments.skip_largest,
        timeout=arguments.compile_timeout or _TIMEOUT,
    )
    report = Report(target, outcome, usable_memory(target.accelerator))
    hand_out(report.text(), report.to_dict(), as_json=arguments.json)
    return 0 if report.is_good else 1


def _plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as values for JSON, for the process that compiles."""
    return {name: value for name, value in vars(arguments).items() if name != "compile_for"}
