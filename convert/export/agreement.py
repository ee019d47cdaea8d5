"""How far exported programs are from the model that they were made of."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from earvae_jax.errors import UserError
from earvae_jax.model.layers import folded
from earvae_jax.model.vae import EarVAE

# Two float32 programs of a deep model stand up to some 1e-5 apart; a mistake in an export is far larger.
TOLERANCE = 1e-4
# Batch and latents of what is compared: one latent, an odd number, and two items of more.
SIZES = ((1, 1), (1, 7), (2, 20))
Run = Mapping[str, Callable[[np.ndarray], Any]]  # by the program's name; values are [B, time, channels]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The largest distance of any output, relative to the larger of 1 and the output's peak."""

    distance: float
    latents: tuple[int, ...]  # lengths of what was compared


class Reference:
    """The answers of a model to audio and latents of noise, computed once for all formats."""

    def __init__(self, model: EarVAE):
        self.config = model.config
        graph, self._weights = nnx.split(folded(model))

        def jitted(part: Callable[[EarVAE], Any]) -> Callable[[Any, Any], Any]:
            # The weights are an argument: XLA would spend minutes on folding constants of this size.
            return jax.jit(lambda weights, values: part(nnx.merge(graph, weights))(values))

        self._parts = {
            "encoder": jitted(lambda model: model.encode),
            "decoder": jitted(lambda model: model.decoder),
        }
        if model.transformers is not None:
            self._parts["transformer"] = jitted(lambda model: model.transformers)

    def compared(self, run: Run) -> Agreement:
        """Runs the programs at every size.

        Raises:
          UserError: an output is further from the model's than `TOLERANCE`, or has another shape.
        """
        worst, where = 0.0, ""
        for size in self._sizes():
            for name, (given, expected) in self._answers(size).items():
                outputs = run[name](given)
                for output, right in zip(_listed(outputs), expected, strict=True):
                    output = np.asarray(output)
                    if output.shape != right.shape:
                        raise UserError(
                            f"the exported {name} gives {output.shape} for {given.shape}, the model "
                            f"{right.shape}: nothing was written, please report it"
                        )
                    distance = float(np.max(np.abs(output - right)) / max(1.0, np.max(np.abs(right))))
                    distance = np.inf if np.isnan(distance) else distance
                    if distance > worst:
                        worst, where = distance, name
        if not worst <= TOLERANCE:
            raise UserError(
                f"the exported {where} is {worst:.1e} from the model, more than {TOLERANCE:.0e}: nothing "
                "was written, please report it"
            )
        return Agreement(worst, tuple(latents for _, latents in self._sizes()))

    def _sizes(self) -> list[tuple[int, int]]:
        transformer = self.config.transformer
        if transformer is None or not transformer.use_abs_pos_emb:
            return list(SIZES)
        return [(batch, min(latents, transformer.abs_pos_emb_max_length)) for batch, latents in SIZES]

    @functools.cache  # noqa: B019 - lives as long as its export
    def _answers(self, size: tuple[int, int]) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
        """What each program is given, and what the model makes of it."""
        (batch, latents), config = size, self.config
        random = np.random.default_rng(latents)
        shape = (batch, latents * config.downsampling_ratio, config.io_channels)
        audio = (0.2 * random.standard_normal(shape)).astype(np.float32)
        codes = random.standard_normal((batch, latents, config.latent_dim)).astype(np.float32)
        answers = {}
        for name, part in self._parts.items():
            given = audio if name == "encoder" else codes
            with jax.default_matmul_precision("highest"):  # as the codec computes float32
                made = part(self._weights, given)
            made = [made.mean, made.std] if name == "encoder" else [made]
            answers[name] = given, [np.asarray(array) for array in made]
        return answers


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
