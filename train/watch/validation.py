"""Validation: how well the averaged weights reconstruct audio that was never trained on."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from earvae_jax.model.bottleneck import Posterior
from earvae_jax.model.config import ModelConfig
from earvae_jax.signal.block_transforms import block_dct
from earvae_jax.signal.metrics import evaluate_pair
from earvae_jax.system.between_processes import local
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Trainer

SCORE = "si_sdr"  # the best model is the one with the highest
_DISTANCES = ("stft_distance", "mel_distance")  # the lower, the better
_METRICS = (SCORE, *_DISTANCES, "icpc", "ccpc")


class Validator:
    """Reconstructs fixed held-out crops from the mean latents and measures them."""

    def __init__(self, trainer: Trainer, audio: Float[np.ndarray, "I T C"]):
        self.audio, self.sample_rate = audio, trainer.config.sample_rate
        self._reconstruct = jax.jit(
            lambda generator, constants, audio: trainer.reconstruct(generator, constants, audio, None)[0]
        )
        dtype = jnp.dtype(trainer.config.compute_dtype)
        self._encode = jax.jit(
            lambda state, audio: jax.tree.map(
                lambda leaf: leaf.astype(jnp.float32), trainer.model(state).encode(audio.astype(dtype))
            )
        )
        self._model_config = trainer.model_config

    def reconstruct(self, state: TrainState) -> Float[np.ndarray, "I T C"]:
        """Every crop with the averaged weights, one at a time to keep memory small."""
        crops = (
            self._reconstruct(state.average, state.constants, jnp.asarray(crop[None])) for crop in self.audio
        )
        return np.concatenate([np.asarray(local(crop)) for crop in crops])

    def latents(self, state: TrainState) -> Posterior:
        """The latents of every crop with the averaged weights, as arrays of NumPy."""
        found = [self._encode(state, jnp.asarray(crop[None])) for crop in self.audio]
        return jax.tree.map(
            lambda *leaves: np.concatenate([np.asarray(local(leaf)) for leaf in leaves]), *found
        )

    def measure(self, reconstructions: Float[np.ndarray, "I T C"]) -> dict[str, float]:
        """`mean_metrics` against the held-out crops; empty if a reconstruction is not finite."""
        if not np.isfinite(reconstructions).all():
            return {}
        return mean_metrics(self.audio, reconstructions, self.sample_rate)

    def gains(self, results: Mapping[str, float]) -> dict[str, float]:
        """What the model gains over a fixed cosine transform of its rate; it is the better one above 0."""
        transform = self._of_transform
        signs = {name: -1 if name in _DISTANCES else 1 for name in results if name in transform}
        return {name: sign * (results[name] - transform[name]) for name, sign in signs.items()}

    @functools.cached_property
    def _of_transform(self) -> dict[str, float]:
        return mean_metrics(self.audio, by_transform(self.audio, self._model_config), self.sample_rate)


def by_transform(audio: Float[np.ndarray, "I T C"], config: ModelConfig) -> Float[np.ndarray, "I T C"]:
    """What a `block_dct` with as many numbers as a model makes of crops, three quarters of them for mid."""
    block, side = config.downsampling_ratio, config.latent_dim // 4
    mid = min(config.latent_dim - side, block)
    return np.stack([block_dct(crop, mid, min(side, block), block=block) for crop in audio])


def mean_metrics(
    originals: Float[np.ndarray, "I T C"], reconstructions: Float[np.ndarray, "I T C"], sample_rate: int
) -> dict[str, float]:
    """The mean of each metric over the crops for which it is defined."""
    results = [
        evaluate_pair(original, reconstruction, sample_rate)
        for original, reconstruction in zip(originals, reconstructions, strict=True)
    ]
    means = {}
    for name in _METRICS:
        measured = (result[name] for result in results)
        values = [value for value in measured if value is not None and np.isfinite(value)]
        if values:
            means[name] = float(np.mean(values))
    return means
