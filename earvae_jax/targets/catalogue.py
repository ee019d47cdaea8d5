"""The accelerators that a program can be compiled for, with the published figures of one device of each.

Sources: NVIDIA's data sheets of the H100 (SXM5, 80 GB) and the A100 (SXM4, 80 GB), figures without sparsity;
Google's pages https://docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}. What XLA wants to know of a GPU are the
values that its driver tells, as OpenXLA publishes them in xla/backends/gpu/target_config/specs.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from earvae_jax.errors import UserError

_GIB = 1 << 30
_MOST_DEVICES = 256
OF_A_HOST = 8  # devices in one machine, as they are sold


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA wants to know of an NVIDIA GPU besides its memory."""

    capability: int  # major number of the compute capability
    cores: int  # streaming multiprocessors
    units: int  # float32 units of each
    shared_per_core: int  # bytes
    shared_per_block: int  # bytes, at most
    level_2: int  # bytes
    clock: float  # GHz


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One kind of device."""

    name: str
    kind: str  # as JAX calls the device
    platform: Literal["cuda", "tpu"]
    memory: int  # bytes, as the driver or the compiler tells
    bandwidth: float  # bytes of main memory in a second
    # Operations in a second by the kind of product: "tf32" is float32 by default, "f32" is float32 at its
    # highest precision.
    peaks: Mapping[str, float]
    gpu: Gpu | None = None
    dimensions: int = 2  # of the network of a TPU's chips


def _tpu(
    name: str, kind: str, memory: float, bandwidth: float, peak: float, dimensions: int = 2
) -> Accelerator:
    # A TPU multiplies in bfloat16: float32 takes one product by default and six at the highest precision.
    peaks = {"bf16": peak, "tf32": peak, "f32": peak / 6}
    return Accelerator(name, kind, "tpu", int(memory * _GIB), bandwidth, peaks, dimensions=dimensions)


ACCELERATORS: dict[str, Accelerator] = {
    each.name: each
    for each in (
        Accelerator(
            "h100",
            "NVIDIA H100 80GB HBM3",
            "cuda",
            memory=84_942_979_072,
            bandwidth=3.35e12,
            peaks={"bf16": 989.4e12, "f16": 989.4e12, "tf32": 494.7e12, "f32": 66.9e12},
            gpu=Gpu(9, 132, 128, 233_472, 232_448, 52_428_800, 1.98),
        ),
        Accelerator(
            "a100",
            "NVIDIA A100-SXM4-80GB",
            "cuda",
            memory=85_100_068_864,
            bandwidth=2.039e12,
            peaks={"bf16": 312e12, "f16": 312e12, "tf32": 156e12, "f32": 19.5e12},
            gpu=Gpu(8, 108, 64, 167_936, 166_912, 41_943_040, 1.41),
        ),
        # Of the memory that the pages name, 16, 95 and 32 GB, the compiler hands out this much.
        _tpu("v5e", "TPU v5 lite", 15.75, 819e9, 197e12),
        _tpu("v5p", "TPU v5", 95.74, 2765e9, 459e12, dimensions=3),
        _tpu("v6e", "TPU v6 lite", 31.25, 1640e9, 918e12),
    )
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Some devices of a kind."""

    accelerator: Accelerator
    devices: int = 1

    @property
    def name(self) -> str:
        """As on the command line: `h100`, `h100x8`."""
        count = "" if self.devices == 1 else f"x{self.devices}"
        return f"{self.accelerator.name}{count}"

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Reads a target such as `h100` or `v5ex4`.

        Raises:
          UserError: there is no such accelerator, or it does not come in this number.
        """
        known = ", ".join(ACCELERATORS)
        found = re.fullmatch(rf"({'|'.join(ACCELERATORS)})(?:x([0-9]+))?", text.strip().lower())
        if found is None:
            raise UserError(
                f"no accelerator {text!r} to compile for; there are {known}, each with a count as in h100x8"
            )
        target = cls(ACCELERATORS[found[1]], int(found[2] or 1))
        if not 1 <= target.devices <= _MOST_DEVICES:
            raise UserError(f"{text}: the count is a number from 1 to {_MOST_DEVICES}")
        if target.accelerator.platform == "tpu" and target.devices & (target.devices - 1):
            raise UserError(f"{text}: TPUs come in powers of two")
        if target.devices > OF_A_HOST and target.devices % OF_A_HOST:
            raise UserError(f"{text}: more than {OF_A_HOST} come in multiples of {OF_A_HOST}")
        return target
