"""Whether windows give the whole-file answer on the card, in float32."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from earvae_jax.infer.codec import Codec
from earvae_jax.model.vae import EarVAE
from tools.card.measured.part import Asked, distances, run

_SECONDS = 20.0
_SMALL_SECONDS = 8.0
_SIZES = (256, 64)  # latents: several windows, of both sizes
_BOUND = 5e-6  # of the peak, as the tests ask


def measure(asked: Asked) -> dict[str, Any]:
    """Encodes and decodes a file in windows and at once."""
    model = asked.model()
    config, ratio = model.config, model.config.downsampling_ratio
    assert config.sample_rate is not None
    count = int((_SMALL_SECONDS if asked.small else _SECONDS) * config.sample_rate) // ratio
    random = np.random.default_rng(0)
    audio = 0.1 * random.standard_normal((count * ratio, config.io_channels)).astype(np.float32)
    latents = random.standard_normal((count, config.latent_dim)).astype(np.float32)
    codec: Any = Codec(model, window_sizes=_SIZES)
    encoded = codec.encode(audio)
    answers = {"mean": encoded.mean, "std": encoded.std, "audio": codec.decode(latents)}
    rows = []
    for part, expected in _whole_file(model, audio, latents).items():
        found = distances(answers[part], expected)
        rows.append({"part": part, **found, "bound": _BOUND, "passed": found["largest"] <= _BOUND})
    return {"latents": count, "windows": _SIZES, "rows": rows, "passed": all(row["passed"] for row in rows)}


def _whole_file(model: EarVAE, audio: np.ndarray, latents: np.ndarray) -> dict[str, np.ndarray]:
    graph, state = nnx.split(model)
    with jax.default_matmul_precision("highest"):
        posterior = jax.jit(lambda weights, x: nnx.merge(graph, weights).encode(x))(state, audio[None])
        decoded = jax.jit(lambda weights, z: nnx.merge(graph, weights).decode(z))(state, latents[None])
        outputs = {"mean": posterior.mean, "std": posterior.std, "audio": decoded}
        return {name: np.asarray(array[0], np.float64) for name, array in outputs.items()}


if __name__ == "__main__":
    run(measure, __doc__)
