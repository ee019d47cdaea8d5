"""What was compiled, in figures: as a table for people, and as one JSON object."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.compiling import Outcome
from earvae_jax.targets.floors import floor, seconds_of_bytes, seconds_of_operations

NOTE = (
    "compiled, not run: a floor is the time that bytes or matrix products take by themselves at the "
    "published figures of the device, whichever is longer; it is never a speed"
)
_SHOWN_KINDS = 6


class Report:
    """The figures of an outcome.

    Args:
      usable: bytes that JAX hands out on a device of the target.
    """

    def __init__(self, target: Target, outcome: Outcome, usable: int):
        self._target, self._outcome, self._usable = target, outcome, usable
        self._programs = [self._program(each) for each in outcome.plan["programs"]]
        self._memory = self._in_memory()

    @property
    def is_good(self) -> bool:
        """Whether every program compiles and all of it fits."""
        return not self._outcome.failed and self._memory["fits"]

    def to_dict(self) -> dict[str, Any]:
        """Everything as values for JSON; sizes in bytes, times in seconds, for each device."""
        accelerator = self._target.accelerator
        return {
            "target": self._target.name,
            "device": accelerator.kind,
            "devices": self._target.devices,
            "published": {
                "memory": accelerator.memory,
                "bytes_per_second": accelerator.bandwidth,
                "operations_per_second": dict(accelerator.peaks),
            },
            "jax": metadata.version("jax"),
            "subject": self._outcome.plan["subject"],
            "programs": self._programs,
            "floor_seconds_of_all_runs": self._floor_of_all_runs(),
            "memory": self._memory,
            "largest": self._outcome.largest,
            "search_stopped": self._outcome.stopped,
            "note": NOTE,
        }

    def text(self) -> str:
        """Everything in Markdown."""
        accelerator = self._target.accelerator
        lines = [
            f"{self._outcome.plan['subject']}, for {self._target.devices} × {accelerator.kind}, "
            f"jax {metadata.version('jax')}; figures are of each device",
            "",
            "| program | runs | kernels | GB | TFLOP | bytes alone ms | products alone ms | floor ms "
            "| temporaries GB | compile s |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_row(program) for program in self._programs),
            "",
            *(f"{each['name']}: {each['problem']}" for each in self._programs if each["problem"]),
            *self._notes(),
            *self._kinds(),
            f"floor of all runs together: {_duration(self._floor_of_all_runs())}",
            self._memory_line(),
            *(self._largest_line(each) for each in self._outcome.largest),
        ]
        if self._outcome.stopped:
            lines.append(f"the search for the largest size stopped: {self._outcome.stopped}")
        return "\n".join([*lines, "", f"{NOTE[0].upper()}{NOTE[1:]}.", ""])

    def _program(self, named: Mapping[str, Any]) -> dict[str, Any]:
        program = dict(named)
        failed = self._outcome.failed.get(program["name"])
        if failed is not None:
            why = "does not fit: " if failed["too_large"] else ""
            return program | {"problem": why + failed["message"]}
        compiled = self._outcome.compiled[program["name"]]
        reading, accelerator = compiled["reading"], self._target.accelerator
        return {
            **program,
            **reading,
            "seconds_of_bytes": seconds_of_bytes(accelerator, reading["bytes"]),
            "seconds_of_products": seconds_of_operations(accelerator, reading["operations"]),
            "floor_seconds": floor(accelerator, reading["bytes"], reading["operations"]),
            "held": compiled["held"],
            "beside": compiled["beside"],
            "trace_seconds": compiled["trace_seconds"],
            "compile_seconds": compiled["compile_seconds"],
            "problem": None,
        }

    def _floor_of_all_runs(self) -> float:
        """Seconds of the programs that compiled."""
        return sum(each["runs"] * each["floor_seconds"] for each in self._programs if not each["problem"])

    def _in_memory(self) -> dict[str, Any]:
        resident = self._outcome.plan["resident"]
        compiled = [program for program in self._programs if not program["problem"]]
        temporaries = max((each["memory"]["temporaries"] for each in compiled), default=0)
        besides = max(
            (each["beside"] + max(0, each["memory"]["total"] - each["held"]) for each in compiled), default=0
        )
        total = sum(resident.values()) + besides
        too_large = any(failed["too_large"] for failed in self._outcome.failed.values())
        return {
            **resident,
            "temporaries": temporaries,
            "batches and code": besides - temporaries,
            "total": total,
            "usable": self._usable,
            "fits": total <= self._usable and not too_large,
        }

    def _notes(self) -> list[str]:
        """What the table has no column for: exchange between devices, and loops of unknown length."""
        lines = []
        for each in self._programs:
            if each.get("exchanged"):
                lines.append(
                    f"{each['name']}: moves {each['exchanged'] / 1e9:.2f} GB to exchange with others"
                )
            if loops := each.get("unknown_loops"):
                lines.append(f"{each['name']}: {loops} loops turn as the input says, and count once")
        return lines

    def _kinds(self) -> list[str]:
        """What the program that moves most spends its bytes on."""
        compiled = [program for program in self._programs if not program["problem"]]
        if not compiled:
            return []
        most = max(compiled, key=lambda program: program["bytes"])
        rows = [
            f"| {kind['kind']} | {kind['kernels']} | {kind['bytes'] / 1e9:.3f} |"
            for kind in most["kinds"][:_SHOWN_KINDS]
        ]
        return [f"| kernels of {most['name']} | number | GB |", "|---|---|---|", *rows, ""]

    def _memory_line(self) -> str:
        parts = {name: size for name, size in self._memory.items() if name not in ("total", "usable", "fits")}
        listed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        verdict = "fits" if self._memory["fits"] else "does not fit"
        if self._outcome.failed and self._memory["fits"]:
            verdict = "fits as far as it was compiled"
        return (
            f"memory in GB: {listed}; together {self._memory['total'] / 1e9:.2f} of the "
            f"{self._usable / 1e9:.1f} that JAX hands out: {verdict}"
        )

    def _largest_line(self, found: Mapping[str, Any]) -> str:
        size = found["size"] or f"none, not even {min(found['sizes_compiled'])}"
        times = found["compilations"]
        return f"largest {found['what']} that fits: {size} (found with {times} further compilations)"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2f} {unit}"
    return f"{1e3 * seconds:.2f} ms"


def _row(program: Mapping[str, Any]) -> str:
    if program["problem"]:
        return f"| {program['name']} | {program['runs']} | – | – | – | – | – | – | – | – |"
    cells = (
        program["name"],
        program["runs"],
        program["kernels"],
        f"{program['bytes'] / 1e9:.2f}",
        f"{sum(program['operations'].values()) / 1e12:.3f}",
        *(
            f"{1e3 * program[key]:.2f}"
            for key in ("seconds_of_bytes", "seconds_of_products", "floor_seconds")
        ),
        f"{program['memory']['temporaries'] / 1e9:.2f}",
        f"{program['compile_seconds']:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"
