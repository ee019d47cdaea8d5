"""Runs the same audio in PyTorch and JAX: how far apart they are, and how far each is from float64.

Two correct float32 programs differ by rounding. A float64 run of the PyTorch model tells rounding from a
mistake: the JAX model passes if its distance from that run is at most twice the distance of PyTorch's own
float32 runs, plus 1e-6.

PyTorch runs twice, with and without oneDNN, which sum in different orders, and its larger distance counts. A
largest error is one number by chance: in tiny random models, which amplify rounding, those of two correct
programs differ by more than a factor of two in one probe of ten.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.vae import EarVAE

if TYPE_CHECKING:
    from torch import nn

_FLOOR = 1e-6


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer's output, or the whole model's. Distances are maxima, in units of `scale`."""

    name: str
    shape: tuple[int, ...]  # channels last
    max_difference: float  # max |JAX − PyTorch|, not in units of `scale`
    relative_difference: float  # ‖JAX − PyTorch‖₂ / ‖PyTorch‖₂
    scale: float  # the larger of 1 and the float64 run's peak
    torch_error: float  # larger distance of PyTorch's two float32 runs from float64
    jax_error: float  # distance of JAX from float64

    @property
    def passed(self) -> bool:
        """Whether JAX is about as exact as PyTorch; false if anything is NaN."""
        return self.jax_error <= 2 * self.torch_error + _FLOOR


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows in the order of computation; each layer's input is the output of the layers before it."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report in the form that is written to JSON."""
        rows = [{**dataclasses.asdict(row), "passed": row.passed} for row in self.rows]
        return {"passed": self.passed, "rows": rows}

    def table(self) -> str:
        """The report as text: one line for each row and one for the outcome."""
        width = max(len(row.name) for row in self.rows)
        header = f"{'':{width}}   max |Δ|   relative   torch ↔ float64   JAX ↔ float64"
        lines = [
            f"{row.name:{width}}  {row.max_difference:8.1e}   {row.relative_difference:8.1e}"
            f"   {row.torch_error:15.1e}   {row.jax_error:13.1e}{'' if row.passed else '   FAILED'}"
            for row in self.rows
        ]
        failed = sum(not row.passed for row in self.rows)
        rule = f"JAX no further from float64 than twice PyTorch's distance + {_FLOOR:g}"
        outcome = f"FAILED in {failed} of {len(lines)} rows: {rule}" if failed else f"passed: {rule}"
        return "\n".join([header, *lines, outcome]) + "\n"


def compare(model: EarVAE, torch_model: "nn.Module", audio: Float[np.ndarray, "B T C"]) -> Report:
    """Encodes audio, and decodes its mean latents, in both frameworks and in float64.

    Args:
      model: the JAX model.
      torch_model: the port, the published `EAR_VAE` or diffusers' class, with the same weights, in float32;
        it becomes float64.
      audio: at the model's sample rate, at least one latent long.
    """
    import torch

    ours = jax_outputs(model, audio)
    theirs = torch_outputs(torch_model, audio)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of TF32 on Intel's GPUs, as it saves every setting
        with torch.backends.mkldnn.flags(enabled=False):
            again = torch_outputs(torch_model, audio)
    truth = torch_outputs(torch_model.double(), audio)
    return Report(tuple(_row(name, ours[name], theirs[name], truth[name], again[name]) for name in truth))


def jax_outputs(model: EarVAE, audio: Float[np.ndarray, "B T C"]) -> dict[str, np.ndarray]:
    """The output of every top-level layer, by its published name, and of the model; channels last."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(state: nnx.State, audio: Float[Array, "B T C"]) -> dict[str, Array]:
        return dict(_walk(nnx.merge(graph, state), audio))

    with jax.default_matmul_precision("highest"):
        outputs = run(state, np.asarray(audio, np.float32))
    return {name: np.asarray(array) for name, array in outputs.items()}


def torch_outputs(model: Any, audio: Float[np.ndarray, "B T C"]) -> dict[str, np.ndarray]:
    """Like `jax_outputs`, for a PyTorch model, in the model's own precision."""
    import torch

    outputs: dict[str, np.ndarray] = {}

    def note(name: str, tensor: torch.Tensor, *, sequence: bool = False) -> None:
        # Everything is [B, C, T] in PyTorch, except in the transformer.
        outputs[name] = (tensor if sequence else tensor.transpose(1, 2)).contiguous().numpy()

    hooks = []
    for part in ("encoder", "transformers", "decoder"):
        layers = getattr(getattr(model, part, None), "layers", ())
        for index, layer in enumerate(layers):

            def hook(module, inputs, output, name=f"{part}.layers.{index}", sequence=part == "transformers"):
                note(name, output, sequence=sequence)

            hooks.append(layer.register_forward_hook(hook))
    dtype = next(model.parameters()).dtype
    try:
        with torch.no_grad():
            encoded = model.encoder(torch.tensor(np.swapaxes(audio, 1, 2), dtype=dtype))
            mean, scale = encoded.chunk(2, dim=1)
            note("mean", mean)
            note("scale", scale)
            std = getattr(model, "std", None)  # the published code has none
            if std is not None:
                note("std", std(scale))
            note("reconstruction", model.decode(mean))
    finally:
        for handle in hooks:
            handle.remove()
    return outputs


def _walk(model: EarVAE, audio: Float[Array, "B T C"]) -> Iterator[tuple[str, Array]]:
    x = audio
    for index, layer in enumerate(model.encoder.layers):
        x = layer(x)
        yield f"encoder.layers.{index}", x
    posterior = Posterior.from_encoder(x, std_offset=model.config.std_offset)
    yield "mean", posterior.mean
    yield "scale", posterior.scale
    yield "std", posterior.std
    x = posterior.mean
    if model.transformers is not None:
        x = model.transformers.embed(x)
        for index, layer in enumerate(model.transformers.layers):
            x = layer(x, model.transformers.rotary_pos_emb)
            yield f"transformers.layers.{index}", x
    for index, layer in enumerate(model.decoder.layers):
        x = layer(x)
        yield f"decoder.layers.{index}", x
    yield "reconstruction", x


def _row(name: str, ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, *again: np.ndarray) -> Row:
    scale = max(1.0, float(np.max(np.abs(truth))))

    def error(output: np.ndarray) -> float:
        return float(np.max(np.abs(output - truth))) / scale

    difference = ours.astype(np.float64) - theirs
    norm = float(np.linalg.norm(theirs.astype(np.float64)))
    return Row(
        name=name,
        shape=ours.shape,
        max_difference=float(np.max(np.abs(difference))),
        relative_difference=float(np.linalg.norm(difference)) / norm if norm else 0.0,
        scale=scale,
        torch_error=max(map(error, (theirs, *again))),
        jax_error=error(ours),
    )


def probe_signal(samples: int, channels: int) -> Float[np.ndarray, "1 T C"]:
    """Decaying harmonics over a little noise, different in each channel, peak 0.5; the same at every call."""
    generator = np.random.default_rng(0)
    time = np.arange(samples)[:, None]
    frequencies = (
        0.005 * np.arange(1, 9)[:, None] * generator.uniform(0.9, 1.1, channels)
    )  # cycles per sample
    phases = generator.uniform(0, 2 * np.pi, (8, channels))
    audio = 0.02 * generator.standard_normal((samples, channels))
    for harmonic, (frequency, phase) in enumerate(zip(frequencies, phases, strict=True), start=1):
        decay = np.exp(-harmonic * (time % 11_025) / 8_000)  # struck again and again
        audio += decay / harmonic * np.sin(2 * np.pi * frequency * time + phase)
    return (0.5 * audio / np.max(np.abs(audio))).astype(np.float32)[None]
