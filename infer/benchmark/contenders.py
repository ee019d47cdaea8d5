"""What a benchmark compares: this project's codec, and the same model in PyTorch, eager and compiled."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from earvae_jax.errors import require
from earvae_jax.infer.codec import Codec
from earvae_jax.model.vae import EarVAE


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that can be timed: a stage takes and returns arrays in host memory."""

    name: str
    stages: Mapping[str, Callable[[], object]]  # encode, decode, round trip
    device_peak: Callable[[], int | None]  # peak bytes of accelerator memory so far; None on a CPU


def codec_contender(
    model: EarVAE,
    audio: Float[np.ndarray, "T C"],
    latents: Float[np.ndarray, "N D"],
    dtype: str,
    *,
    formulation: str = "auto",
) -> Contender:
    """`Codec`, with its windows and copies."""
    # Speed does not depend on the rate, but the codec wants one.
    rate = model.config.sample_rate or 44_100
    codec = Codec(model, dtype=dtype, sample_rate=rate, formulation=formulation)
    stages = {
        "encode": lambda: codec.encode(audio),
        "decode": lambda: codec.decode(latents),
        "round trip": lambda: codec.reconstruct(audio),
    }
    device = jax.local_devices()[0]

    def device_peak() -> int | None:
        return (device.memory_stats() or {}).get("peak_bytes_in_use") if device.platform != "cpu" else None

    name = "earvae-jax" if formulation == "auto" else f"earvae-jax, {formulation}"
    return Contender(name, stages, device_peak)


def torch_contenders(
    model: EarVAE,
    audio: Float[np.ndarray, "T C"],
    latents: Float[np.ndarray, "N D"],
    dtype: str,
    *,
    with_compile: bool,
) -> list[Contender]:
    """The PyTorch port with the same weights, weight norm folded, over the whole file at once.

    It runs on the GPU where JAX does.

    Raises:
      UserError: torch is not installed.
    """
    torch = require("torch", extra="torch")
    # The one import from another application: it is the yardstick, and needs torch.
    from earvae_jax.convert.to_torch import state_dict
    from earvae_jax.convert.torch_port.model import build, fold_weight_norm

    on_gpu = jax.local_devices()[0].platform == "gpu" and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "float32"
    net: Any = fold_weight_norm(build(model.config, state_dict(model))).to(device=device, dtype=kind)
    audio_in, latents_in = (torch.from_numpy(np.ascontiguousarray(x.T[None])) for x in (audio, latents))

    @torch.inference_mode()
    def run(values, *functions):
        values = values.to(device=device, dtype=kind)
        for function in functions:
            values = function(values)
        return values.float().cpu().numpy()[0].T  # the copy waits for the device

    def contender(name: str, encode: Callable, decode: Callable) -> Contender:
        stages = {
            "encode": lambda: run(audio_in, encode),
            "decode": lambda: run(latents_in, decode),
            "round trip": lambda: run(audio_in, encode, decode),
        }
        return Contender(name, stages, torch.cuda.max_memory_allocated if on_gpu else lambda: None)

    def mean_of(values):
        return net.encode(values)[0]

    contenders = [contender("torch eager", mean_of, net.decode)]
    if with_compile:
        contenders.append(contender("torch.compile", torch.compile(mean_of), torch.compile(net.decode)))
    return contenders
