"""What a benchmark compares: this project's codec, and the same model in PyTorch and in diffusers."""

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from earvae_jax.errors import UserError, require
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
    batch_size: int | Literal["auto"] = "auto",
) -> Contender:
    """`Codec`, with its windows and copies."""
    # Speed does not depend on the rate, but the codec wants one.
    rate = model.config.sample_rate or 44_100
    codec = Codec(model, dtype=dtype, sample_rate=rate, formulation=formulation, batch_size=batch_size)
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

    device, kind = _torch_side(torch, dtype)
    net: Any = fold_weight_norm(build(model.config, state_dict(model))).to(device=device, dtype=kind)

    def mean_of(values):
        return net.encode(values)[0]

    ways = {"torch eager": (mean_of, net.decode)}
    if with_compile:
        ways["torch.compile"] = torch.compile(mean_of), torch.compile(net.decode)
    return [_in_torch(torch, name, audio, latents, dtype, *functions) for name, functions in ways.items()]


def diffusers_contender(
    model: EarVAE, audio: Float[np.ndarray, "T C"], latents: Float[np.ndarray, "N D"], dtype: str
) -> Contender:
    """diffusers' `AutoencoderOobleck` with the same weights, as it loads them, over the whole file at once.

    It runs on the GPU where JAX does.

    Raises:
      UserError: torch or diffusers is not installed, or the class cannot be such a model.
    """
    torch = require("torch", extra="torch")
    if importlib.util.find_spec("diffusers") is None:
        raise UserError("this needs diffusers, which is not installed; run: pip install diffusers")
    import diffusers

    from earvae_jax.convert.to_torch import in_layout

    tensors, values = in_layout(model, "diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about the form of weight norm in it
        net: Any = diffusers.AutoencoderOobleck(
            **{key: value for key, value in values.items() if not key.startswith("_")}
        )
    net.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in tensors.items()})
    device, kind = _torch_side(torch, dtype)
    net = net.eval().to(device=device, dtype=kind)

    def mean_of(values):
        return net.encode(values).latent_dist.mean

    return _in_torch(torch, "diffusers", audio, latents, dtype, mean_of, lambda z: net.decode(z).sample)


def _torch_side(torch: Any, dtype: str) -> tuple[str, Any]:
    """Where torch computes, and in which type; it rounds the products of float32 where JAX does."""
    on_gpu = jax.local_devices()[0].platform == "gpu" and torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "float32"
    return "cuda" if on_gpu else "cpu", torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _in_torch(
    torch: Any,
    name: str,
    audio: Float[np.ndarray, "T C"],
    latents: Float[np.ndarray, "N D"],
    dtype: str,
    encode: Callable,
    decode: Callable,
) -> Contender:
    device, kind = _torch_side(torch, dtype)
    audio_in, latents_in = (torch.from_numpy(np.ascontiguousarray(x.T[None])) for x in (audio, latents))

    @torch.inference_mode()
    def run(values, *functions):
        values = values.to(device=device, dtype=kind)
        for function in functions:
            values = function(values)
        return values.float().cpu().numpy()[0].T  # the copy waits for the device

    stages = {
        "encode": lambda: run(audio_in, encode),
        "decode": lambda: run(latents_in, decode),
        "round trip": lambda: run(audio_in, encode, decode),
    }
    return Contender(name, stages, torch.cuda.max_memory_allocated if device == "cuda" else lambda: None)
