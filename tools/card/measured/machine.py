"""What the machine is: its card, driver and versions, and which optional packages it lacks."""

import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import jax

from earvae_jax.system import machine
from tools.card.measured.part import Asked, run
from tools.card.packages import OPTIONAL, is_there

_VERSIONS = (
    "jax",
    "jaxlib",
    "flax",
    "torch",
    "triton",
    "diffusers",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
)
_FIELDS = "name,driver_version,memory.total,power.limit,clocks.max.sm"


def measure(asked: Asked) -> dict[str, Any]:
    """Describes the machine."""
    device = jax.local_devices()[0]
    return {
        "machine": machine.describe(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": len(jax.local_devices()),
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "system": platform.platform(),
        "driver": _driver(),
        "versions": {name: version for name in _VERSIONS if (version := _version(name))},
        "without": [module for module in OPTIONAL if not is_there(module)],
    }


def _driver() -> dict[str, str]:
    """What the driver of an NVIDIA card tells; nothing where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    words = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader"]
    told = subprocess.run(words, capture_output=True, text=True).stdout.strip().splitlines()
    return dict(zip(_FIELDS.split(","), told[0].split(", "), strict=False)) if told else {}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    run(measure, __doc__)
