"""How far the codec is from float64, in each number format, beside torch in the same format.

The truth is the torch port in float64 on the CPU. Without torch it is the model's own modules in float64, on
the card. With torch the codec holds if it is at most twice as far as torch is, plus 1e-6, as `earvae parity`
asks; without, if it is within what a hundred roundings of its format explain.
"""

import contextlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from earvae_jax.convert.parity.compare import probe_signal
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.compiled import DTYPES
from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.vae import EarVAE
from tools.card.measured.part import Asked, distances, run

_LATENTS = 43  # a second
_FLOOR = 1e-6
# Half a unit in the last place, a hundred times: a value meets about a hundred roundings on its way.
_BOUNDS = {"float32": 100 * 2.0**-24, "tf32": 100 * 2.0**-11, "bfloat16": 100 * 2.0**-9}

Outputs = Mapping[str, np.ndarray]  # mean and std [N, D], audio [T, C]


def measure(asked: Asked) -> dict[str, Any]:
    """Encodes a signal, and decodes the true latents, in each format."""
    model = asked.model()
    audio = probe_signal(_LATENTS * model.config.downsampling_ratio, model.config.io_channels)[0]
    torch_net = _port(model) if importlib.util.find_spec("torch") else None
    truth = (
        _float64(model, audio) if torch_net is None else _in_torch(torch_net, audio, None, "cpu", "float64")
    )
    rows = []
    for dtype in DTYPES:
        ours = _by_codec(model, audio, truth["mean"], dtype)
        theirs = _torch_there(torch_net, audio, truth["mean"], dtype)
        for part, expected in truth.items():
            row: dict[str, Any] = {"dtype": dtype, "part": part, **distances(ours[part], expected)}
            bound = _BOUNDS[dtype]
            if theirs is not None:
                row["torch"] = distances(theirs[part], expected)["relative"]
                bound = 2 * row["torch"] + _FLOOR
            rows.append({**row, "bound": bound, "passed": bool(row["relative"] <= bound)})
    truth_is = "modules in float64" if torch_net is None else "torch in float64"
    return {"truth": truth_is, "rows": rows, "passed": all(row["passed"] for row in rows)}


def _by_codec(model: EarVAE, audio: np.ndarray, mean: np.ndarray, dtype: str) -> Outputs:
    codec: Any = Codec(model, dtype=dtype)
    encoded = codec.encode(audio)
    decoded = codec.decode(mean.astype(np.float32))
    return {"mean": encoded.mean, "std": encoded.std, "audio": decoded}


def _port(model: EarVAE) -> Any:
    from earvae_jax.convert.to_torch import state_dict
    from earvae_jax.convert.torch_port.model import build

    return build(model.config, state_dict(model)).eval()


def _torch_there(net: Any, audio: np.ndarray, mean: np.ndarray, dtype: str) -> Outputs | None:
    """Torch in the same format on the same kind of device."""
    if net is None:
        return None
    import torch

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "float32"
    kind = "bfloat16" if dtype == "bfloat16" else "float32"
    return _in_torch(net, audio, mean, "cuda" if on_gpu else "cpu", kind)


def _in_torch(net: Any, audio: np.ndarray, mean: np.ndarray | None, device: str, kind: str) -> Outputs:
    """Without a mean it decodes its own."""
    import copy

    import torch

    net = copy.deepcopy(net).to(device=device, dtype=getattr(torch, kind))

    def taken(array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array.T[None])).to(device=device, dtype=getattr(torch, kind))

    def given(tensor: Any) -> np.ndarray:
        return tensor.double().cpu().numpy()[0].T

    with torch.inference_mode():
        own_mean, scale = net.encoder(taken(audio)).chunk(2, dim=1)
        decoded = net.decode(own_mean if mean is None else taken(mean))
        return {"mean": given(own_mean), "std": given(net.std(scale)), "audio": given(decoded)}


def _float64(model: EarVAE, audio: np.ndarray) -> Outputs:
    with _doubles():
        graph, state = nnx.split(model)
        state = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            state,
        )

        @jax.jit
        def run(state: Any, audio: Any) -> tuple[Any, Any, Any]:
            net = nnx.merge(graph, state)
            posterior = Posterior.from_encoder(net.encoder(audio), std_offset=model.config.std_offset)
            return posterior.mean, posterior.std, net.decode(posterior.mean)

        outputs = run(state, jnp.asarray(audio[None], jnp.float64))
        mean, std, decoded = (np.asarray(each[0]) for each in outputs)
    return {"mean": mean, "std": std, "audio": decoded}


def _doubles() -> contextlib.AbstractContextManager:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # type: ignore[attr-defined] # where older releases have it

    return enable_x64(True)


if __name__ == "__main__":
    run(measure, __doc__)
