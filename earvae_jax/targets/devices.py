"""Devices of a target as the compiler describes them: programs compile for them, and nothing can run on them.

Call `described` in a process that has set `process_variables` before it used JAX.
"""

import importlib.util
import math
import os
from importlib import metadata
from typing import Any

import jax
from absl import logging
from jax.experimental import topologies
from jax.sharding import Sharding, SingleDeviceSharding
from jaxtyping import PyTree

from earvae_jax.borders import explained
from earvae_jax.errors import UserError
from earvae_jax.targets.catalogue import OF_A_HOST, Accelerator, Gpu, Target

# The modules of the compilers, either of which will do, and the project that `pip install` calls them by.
_COMPILERS = {"cuda": ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "tpu": ("libtpu",)}
_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_PACKAGES = {"cuda": "jax[cuda12]", "tpu": "jax[tpu]"}


def process_variables(target: Target) -> dict[str, str]:
    """The environment of a process that compiles for a target: it looks for no device and measures none."""
    variables = {"JAX_PLATFORMS": "cpu"}
    if target.accelerator.platform == "cuda":
        # Autotuning would time kernels on a device.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
        return variables | {"CUDA_VISIBLE_DEVICES": "-1", "XLA_FLAGS": flags}
    return variables | {
        "TPU_SKIP_MDS_QUERY": "1",  # else it asks Google's servers which TPU this machine has
        "TPU_WORKER_HOSTNAMES": "localhost",
        # A lock file guards a TPU, and a process that is killed leaves it behind. Compiling takes no TPU.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def check_compiler(accelerator: Accelerator) -> None:
    """Refuses an accelerator whose compiler is not installed.

    Raises:
      UserError: it names the package to install, in JAX's own version.
    """
    if not any(map(_is_installed, _COMPILERS[accelerator.platform])):
        raise UserError(
            f"compiling for {accelerator.name} needs {accelerator.platform.upper()}'s compiler, though no "
            f"such device; run: {_installation(accelerator)}"
        )


def described(target: Target) -> list[jax.Device]:
    """The devices of a target, without having them.

    Raises:
      UserError: the compiler is not installed, does not start, or is of another version than JAX.
    """
    accelerator = target.accelerator
    check_compiler(accelerator)
    if accelerator.gpu is None:
        shape, host = chips(target)
        options: dict[str, Any] = {
            "topology_name": f"{accelerator.name}:{'x'.join(map(str, shape))}",
            "chips_per_host_bounds": host,
        }
    else:
        hosts = -(-target.devices // OF_A_HOST)
        options = {
            "topology": f"1x{hosts}x{target.devices // hosts}",
            "target_config": target_config(accelerator),
        }
    try:
        return topologies.get_topology_desc(platform=accelerator.platform, **options).devices
    except Exception as error:  # noqa: BLE001 - a compiler without its libraries raises what it likes
        logging.debug("", exc_info=True)
        raise UserError(
            f"the compiler for {accelerator.name} is installed but does not start ({explained(error)}); "
            f"run: {_installation(accelerator)}"
        ) from None


def is_described(device: jax.Device) -> bool:
    """Whether programs can only be compiled for a device, as it is not here."""
    return type(device.client).__name__ == "CompileOnlyPyClient"


def place(arrays: PyTree, where: Sharding | jax.Device) -> PyTree:
    """`jax.device_put`; on devices that are only described the shapes of what would lie there.

    The shapes say where, so that programs are lowered with them as with the arrays.
    """
    sharding = where if isinstance(where, Sharding) else SingleDeviceSharding(where)
    if not any(map(is_described, sharding.device_set)):
        return jax.device_put(arrays, where)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arrays)


def bytes_of_a_device(arrays: PyTree) -> int:
    """Bytes that arrays, or the shapes that `place` gives, take on each of their devices."""

    def size(leaf):
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(arrays)))


def usable_memory(accelerator: Accelerator) -> int:
    """Bytes that JAX hands out on an accelerator: of a GPU three quarters, or what the environment says."""
    if accelerator.platform == "tpu":
        return accelerator.memory
    return int(accelerator.memory * float(os.environ.get(_FRACTION) or 0.75))


def chips(target: Target) -> tuple[tuple[int, ...], tuple[int, int, int]]:
    """How a TPU's chips are arranged, and those of one host: 2 × 4 of v5e, 2 × 2 × 2 of v5p."""
    shape = [1] * target.accelerator.dimensions
    for doubling in range(target.devices.bit_length() - 1):
        shape[-1 - doubling % len(shape)] *= 2
    bounds = shape if target.devices <= OF_A_HOST and len(shape) == 2 else [min(size, 2) for size in shape]
    across, along = bounds[0], bounds[1]
    return tuple(shape), (across, along, 1)


def target_config(accelerator: Accelerator) -> str:
    """What XLA knows of a GPU, as it reads it: the text of a GpuTargetConfigProto."""
    gpu = accelerator.gpu
    assert isinstance(gpu, Gpu), f"{accelerator.name} is no GPU"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_per_core}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {accelerator.bandwidth:.0f}
  l2_cache_size: {gpu.level_2}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {accelerator.memory}
  shared_memory_per_block_optin: {gpu.shared_per_block}
  cuda_compute_capability {{ major: {gpu.capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{accelerator.kind}"
"""


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def _installation(accelerator: Accelerator) -> str:
    return f"pip install '{_PACKAGES[accelerator.platform]}=={metadata.version('jax')}'"
