"""What the project wants of an accelerator, and whether a run reached it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]  # of the parts that are done, by name


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that is wanted."""

    what: str
    wanted: float
    measured: float | None  # None: the parts that tell it are not done
    share: bool = False  # of a peak; else a multiple

    @property
    def cells(self) -> list[str]:
        """As a row of the table."""
        if self.measured is None:
            return [self.what, self._shown(self.wanted), "not measured", ""]
        reached = "reached" if self.measured >= self.wanted else "missed"
        return [self.what, self._shown(self.wanted), self._shown(self.measured), reached]

    def _shown(self, value: float) -> str:
        return f"{value:.0%}" if self.share else f"{value:.2f} ×"


def targets(results: Results) -> list[Target]:
    """All of them. Medians of a round trip at batch 1 of the same audio, and of an adversarial step."""
    low, full, beside = (
        results.get(f"benchmark-{name}", {}) for name in ("bfloat16", "float32", "bfloat16-compile")
    )
    ours, ours_full = _round_trip(low, "earvae-jax"), _round_trip(full, "earvae-jax")
    eager, compiled = _round_trip(full, "torch eager"), _round_trip(beside, "torch.compile")
    step = results.get("training-bfloat16", {})
    speedup = next((values.get("speedup") for values in step.values()), None)
    return [
        Target("round trip in bfloat16 against torch eager in float32", 11, _ratio(eager, ours)),
        Target(
            "round trip in bfloat16 against torch.compile in bfloat16",
            2,
            _ratio(compiled, _round_trip(beside, "earvae-jax")),
        ),
        Target("round trip in float32 against torch eager in float32", 5, _ratio(eager, ours_full)),
        Target("share of the bfloat16 matrix peak in a round trip", 0.5, _best_share(results), share=True),
        Target("training step in bfloat16 against torch", 1.5, speedup),
    ]


def _round_trip(result: Mapping[str, Any], contender: str) -> float | None:
    rows = result.get("rows", ())
    found = (row["median"] for row in rows if (row["contender"], row["stage"]) == (contender, "round trip"))
    return next(found, None)


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


def _best_share(results: Results) -> float | None:
    """Of the formulation that the commands take, at its better batch, on the card alone."""
    rows = results.get("roofline", {}).get("rows", ())
    shares = [
        row["round_trip_of_peak"]
        for row in rows
        if "failed" not in row and (row["dtype"], row["formulation"]) == ("bfloat16", "auto")
    ]
    return max(shares, default=None)
