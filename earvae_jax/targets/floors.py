"""The least time that bytes and products take by themselves: floors, which say nothing of a speed."""

from collections.abc import Mapping

from earvae_jax.targets.catalogue import Accelerator


def seconds_of_bytes(accelerator: Accelerator, count: float) -> float:
    """What main memory takes to hand over so many bytes, if nothing else delays it."""
    return count / accelerator.bandwidth


def seconds_of_operations(accelerator: Accelerator, operations: Mapping[str, float]) -> float:
    """What the matrix units take for the products alone, by the kind of product."""
    slowest = min(accelerator.peaks.values())
    return sum(count / accelerator.peaks.get(kind, slowest) for kind, count in operations.items())


def floor(accelerator: Accelerator, count: float, operations: Mapping[str, float]) -> float:
    """The longer one of the two: a device may do both at a time."""
    return max(seconds_of_bytes(accelerator, count), seconds_of_operations(accelerator, operations))
