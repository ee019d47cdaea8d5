"""What a campaign found, as text."""

import collections
from collections.abc import Sequence

from .outcomes import Outcome


def summary(outcomes: Sequence[Outcome]) -> str:
    """Cases by domain and outcome, then the faults by their cause."""
    lines = [
        "| domain | cases | result | one line | fault | slowest s | most MB |",
        "|---|---|---|---|---|---|---|",
    ]
    domains = sorted({outcome.domain for outcome in outcomes})
    for domain in [*domains, "all"]:
        chosen = [outcome for outcome in outcomes if domain in (outcome.domain, "all")]
        kinds = collections.Counter(outcome.kind for outcome in chosen)
        slowest = max((outcome.seconds for outcome in chosen), default=0.0)
        largest = max((outcome.megabytes for outcome in chosen), default=0)
        counts = f"{len(chosen)} | {kinds['result']} | {kinds['line']} | {kinds['fault']}"
        lines.append(f"| {domain} | {counts} | {slowest:.1f} | {largest} |")
    causes = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.kind == "fault":
            causes[outcome.domain, outcome.cause].append(outcome.number)
    if causes:
        lines += ["", "| faults | domain | cause | for example |", "|---|---|---|---|"]
    for (domain, cause), numbers in sorted(causes.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {len(numbers)} | {domain} | {cause[:200]} | --case {numbers[0]} |")
    return "\n".join(lines) + "\n"


def described(outcome: Outcome) -> str:
    """One case in full."""
    lines = [
        f"case {outcome.number} of {outcome.domain}: {outcome.made}",
        f"{outcome.kind} in {outcome.seconds:.1f} s and {outcome.megabytes} MB",
    ]
    return "\n".join([*lines, *filter(None, (outcome.cause, outcome.detail))])
