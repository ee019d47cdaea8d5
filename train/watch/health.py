"""What goes wrong early and quietly in a run: the side signal, the latents' scale, the discriminator."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from earvae_jax.signal.block_transforms import side_ratio
from earvae_jax.train.config import TrainConfig

_SIDE_DB = 3.0  # by which the side's share of a reconstruction may differ
_LATENT_RMS = (0.1, 10.0)  # generators expect latents of about 1
_DEAD = 1 / 16  # of the latent channels
# The discriminator's loss where it tells all apart is 0; where it knows nothing it is 0.5 with least squares
# and 2 with the hinge.
_UNDECIDED = {"least_squares": 0.5, "hinge": 2.0}
_WON = 0.1  # of that


def latent_measures(mean: Float[np.ndarray, "I N D"], std: Float[np.ndarray, "I N D"]) -> dict[str, float]:
    """Root mean square of the means, mean deviation, and how many channels are dead.

    A channel is dead if its means vary less over all items and times than the noise that is added to them.
    """
    signal = np.std(mean, axis=(0, 1), dtype=np.float64)
    noise = np.sqrt(np.mean(np.square(std, dtype=np.float64), axis=(0, 1)))
    return {
        "latent_rms": float(np.sqrt(np.mean(np.square(mean, dtype=np.float64)))),
        "latent_std": float(np.mean(std, dtype=np.float64)),
        "dead_latents": float(np.sum(signal < noise)),
    }


def side_change(
    originals: Float[np.ndarray, "I T 2"], reconstructions: Float[np.ndarray, "I T 2"]
) -> float | None:
    """By how many dB the side's energy against the mid's has changed, over all items; None: one is silent."""
    before, after = (side_ratio(audio.reshape(-1, 2)) for audio in (originals, reconstructions))
    return None if before is None or after is None else after - before


class Warnings:
    """Says once that something goes wrong, and once that it is right again."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self.active: dict[str, str] = {}  # the text of each warning that holds, by its subject

    def changes(self, measured: Mapping[str, float]) -> Iterator[str]:
        """Lines about the subjects whose state is another with these measures."""
        for subject, text in self._judge(measured):
            if text and subject not in self.active:
                yield text
            elif not text and subject in self.active:
                yield f"{subject}: in order again"
            if text:
                self.active[subject] = text
            else:
                self.active.pop(subject, None)

    def _judge(self, measured: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        if (change := measured.get("side_change_db")) is not None:
            lost = "lost" if change < 0 else "added"
            off = (
                f"side signal: {abs(change):.1f} dB of its energy {lost}; are mid and side in the objective?"
            )
            yield "side signal", off if abs(change) > _SIDE_DB else ""
        if (rms := measured.get("latent_rms")) is not None:
            low, high = _LATENT_RMS
            off = f"latents: their scale is {rms:.3g}, not about 1; kl_weight and the bottleneck decide it"
            yield "latents", "" if low <= rms <= high else off
        if (dead := measured.get("dead_latents")) is not None:
            count = self._config.model_config.latent_dim
            off = f"dead latents: {dead:.0f} of {count} channels carry less than their noise; lower kl_weight"
            yield "dead latents", off if dead > _DEAD * count else ""
        if (loss := measured.get("discriminator")) is not None and self._config.adversarial is not None:
            part = loss / _UNDECIDED[self._config.adversarial.kind]
            off = f"discriminator: it tells everything apart (loss {loss:.3g}); lower its learning rate"
            yield "discriminator", off if part < _WON else ""
