"""`python -m tests.fuzz`: runs or continues a campaign, or replays one case."""

import argparse
import sys
from pathlib import Path

# The package `fuzz` and `small_models`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from fuzz import campaign, table
from fuzz.cases.domains import NAMES


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition(":")[2])
    parser.add_argument("--cases", type=int, default=10_000, help="case numbers 0 … N-1; default: 10000")
    parser.add_argument("--seed", type=int, default=0, help="a case is made from seed and number alone")
    parser.add_argument("--state", default="fuzz-state", help="folder; the same folder continues a campaign")
    parser.add_argument("--only", choices=NAMES, action="append", help="this domain; may be repeated")
    parser.add_argument("--case", type=int, metavar="N", help="replay case N and keep its files")
    parser.add_argument("--again", action="store_true", help="first run anew those that were faults")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--seconds", type=float, default=60.0, help="longer is a hang; default: 60")
    parser.add_argument("--megabytes", type=int, default=4096, help="more memory is a fault; default: 4096")
    return parser.parse_args()


def main() -> int:
    """1 where there are faults."""
    arguments = _arguments()
    limits = campaign.Limits(arguments.seconds, arguments.megabytes)
    state = campaign.State(Path(arguments.state), arguments.seed)
    if arguments.case is not None:
        outcome, folder = campaign.replay(state, arguments.case, limits)
        sys.stdout.write(f"{table.described(outcome)}\nits files: {folder}\n")
        return int(outcome.kind == "fault")
    if arguments.again:
        state.forget_faults()
    campaign.run(
        state,
        arguments.cases,
        limits,
        only=arguments.only,
        workers=arguments.workers,
        tell=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    )
    outcomes = state.outcomes(arguments.cases, arguments.only)
    sys.stdout.write(table.summary(outcomes))
    return int(any(outcome.kind == "fault" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
