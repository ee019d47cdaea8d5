"""What the machine is: its card, driver and versions, and which packages are missing."""

import importlib.util
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import jax

from earvae_jax.system import machine
from tools.card.measured.part import Asked, run

# Modules that the parts use and a machine may lack, by the project that `pip install` calls them by.
NEEDED = {
    "av": "av",
    "dacite": "dacite",
    "jaxtyping": "jaxtyping",
    "optax": "optax",
    "orbax.checkpoint": "orbax-checkpoint",
    "safetensors": "safetensors",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tqdm": "tqdm",
}
OPTIONAL = ("torch", "triton", "diffusers")
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
        "missing": [package for module, package in NEEDED.items() if not _is_there(module)],
        "without": [module for module in OPTIONAL if not _is_there(module)],
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


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


if __name__ == "__main__":
    run(measure, __doc__)
