"""The curves of a run in a file of JSON lines, which the summary is drawn from."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import logging

from earvae_jax.borders import reason
from earvae_jax.system.atomic import replacing

Curves = dict[str, list[tuple[int, float]]]  # (step, value) by "group/name"


class History:
    """Appends to `path`; None keeps and writes nothing (in all processes but the first).

    A disk that is full or fails ends only the history, with one warning, and not the run.

    Args:
      after: the step after which a run continues; what an earlier process wrote of later steps is dropped.
    """

    def __init__(self, path: Path | None, *, after: int | None = None):
        self._path = path
        self.curves: Curves = {}
        if path is None:
            return
        with self._ending_at_errors():
            kept = []
            if after is not None and path.exists():
                kept = [
                    line for line in path.read_text(encoding="utf-8").splitlines() if self._keep(line, after)
                ]
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Adds one point to each curve."""
        if self._path is None or not values:
            return
        self._take(step, group, values)
        # Numbers that are not finite are no JSON.
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._ending_at_errors(), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "group": group, "values": finite}) + "\n")

    def last(self, beginning: str) -> dict[str, dict[str, float]]:
        """The values at their latest step of all groups whose names begin so, by the rest of the name."""
        curves = {name: points[-1] for name, points in self.curves.items() if name.startswith(beginning)}
        latest = max((step for step, _ in curves.values()), default=0)
        found: dict[str, dict[str, float]] = {}
        for curve, (step, value) in curves.items():
            group, _, name = curve.removeprefix(beginning).rpartition("/")
            if step == latest:
                found.setdefault(group, {})[name] = value
        return found

    def _take(self, step: int, group: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self.curves.setdefault(f"{group}/{name}", []).append((step, value))

    def _keep(self, line: str, after: int) -> bool:
        """Takes a line of an earlier process; a last one that was cut off is dropped."""
        try:
            content = json.loads(line)
            step, group, values = int(content["step"]), str(content["group"]), dict(content["values"])
        except (ValueError, KeyError, TypeError):
            return False
        if step <= after:
            self._take(step, group, values)
        return step <= after

    @contextlib.contextmanager
    def _ending_at_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logging.warning("%s: not written any more (%s); training goes on", self._path, reason(error))
            self._path = None
