"""Measures what an accelerator is needed for: `python -m tools.card --output-dir DIR`.

Run it in the checkout, on the machine with the card. It checks exactness, then measures the codec and a
training step beside torch, and writes tables.md. Parts that are done are kept: the same call goes on with
the others. Exit status: 0 all parts are done and hold; 1 one failed, does not hold or did not fit in the
budget; 2 the call is wrong.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from earvae_jax.command import run_program
from earvae_jax.errors import UserError
from earvae_jax.flag_types import positive
from earvae_jax.system.atomic import replacing
from tools.card import tables
from tools.card.parts import PARTS
from tools.card.running import FAILED, NOT_RUN, OUT_OF_TIME, Outcome, Runner

_BUDGET = 570.0  # seconds: ten minutes with the time to start


def main(words: Sequence[str] | None = None) -> int:
    """Runs the parts; returns the exit status."""
    asked = arguments(words)
    runner = Runner(asked.output_dir, small=asked.small, budget=asked.budget)
    machine = runner.look()
    parts = [part for part in PARTS if asked.only is None or part.name in asked.only]
    outcomes: list[Outcome] = []
    for part in parts:
        logging.info("%s: %s (%.0f s left)", part.name, part.title, runner.left)
        outcomes.append(runner.take(part, again=asked.again))
        _tell(outcomes[-1])
        # After each part: whoever ends this program has what it found so far.
        rest = [
            runner.kept(other) or Outcome(other.name, other.title, NOT_RUN)
            for other in parts[len(outcomes) :]
        ]
        _write(
            asked.output_dir / "tables.md", tables.page(machine.result, [*outcomes, *rest], small=asked.small)
        )
    logging.info("%s; tables in %s", tables.summary(outcomes), asked.output_dir / "tables.md")
    return 0 if all(each.good for each in outcomes) else 1


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads a call."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m tools.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output-dir", required=True, type=Path, metavar="DIR", help="takes all that it writes"
    )
    parser.add_argument(
        "--budget",
        type=positive(float, "seconds"),
        default=_BUDGET,
        metavar="SECONDS",
        help=f"default: {_BUDGET:.0f}",
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="PART", help=f"some of {', '.join(names)}"
    )
    parser.add_argument("--again", action="store_true", help="also run what is done already")
    parser.add_argument(
        "--small", action="store_true", help="narrow models: to try this program, also on a CPU"
    )
    return parser.parse_args(words)


def _tell(outcome: Outcome) -> None:
    if outcome.kept:
        logging.info("%s: kept from an earlier call", outcome.name)
    elif outcome.status == FAILED:
        logging.error("%s: failed: %s", outcome.name, outcome.reason)
    elif outcome.status in (NOT_RUN, OUT_OF_TIME):
        logging.warning("%s: %s: %s", outcome.name, outcome.status, outcome.reason)
    else:
        held = "" if outcome.good else ", but DOES NOT HOLD"
        logging.info("%s: done in %.0f s%s", outcome.name, outcome.seconds, held)


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


if __name__ == "__main__":
    run_program(main)
