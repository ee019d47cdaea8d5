"""`Engine`: a model's compiled halves, and how files are cut into windows for them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax.audio.resampling import resampled_length
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.batching import Batcher, BatchSize
from earvae_jax.infer.engine.compiled import CompiledModel
from earvae_jax.infer.engine.cutting import Cut, cut_audio, cut_latents, latent_count, sample_count
from earvae_jax.infer.engine.tiling import GPU_OVERHEAD, OVERHEAD, Tiling, sizes_for
from earvae_jax.infer.latents import Latents
from earvae_jax.model.lengths import latents_of
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import fingerprint, named_arrays
from earvae_jax.receptive_field import decoder_context, encoder_context
from earvae_jax.system.machine import GPUS

_MOST_READERS = 8


class Engine:
    """A model ready to run in a pipeline; the arguments are those of `Codec`.

    Attributes:
      config: the model's configuration.
      sample_rate: the model's rate in Hz.
      fingerprint: fingerprint of the model's weights.
      name: the model's name, for people to read.
      compiled: encoder, transformer and decoder as compiled functions.
      batch_size: windows computed together.
      encoder_tiling, decoder_tiling: how a file is cut into windows.
    """

    def __init__(
        self,
        model: EarVAE,
        *,
        sample_rate: int | None = None,
        dtype: str = "float32",
        batch_size: int | Literal["auto"] = "auto",
        devices: Sequence[jax.Device] | None = None,
        window_sizes: Sequence[int] | None = None,
        model_fingerprint: str | None = None,
        model_name: str = "",
        formulation: str = "auto",
    ):
        rate = sample_rate or model.config.sample_rate
        if rate is None:
            raise UserError("the model's config does not say its sample rate: pass sample_rate")
        self.config = model.config
        self.sample_rate: int = rate
        self.fingerprint = model_fingerprint or fingerprint(named_arrays(model))
        self.name = model_name
        self.compiled = CompiledModel(model, dtype=dtype, devices=devices, formulation=formulation)
        contexts = encoder_context(model.config), decoder_context(model.config)
        window_sizes = window_sizes or sizes_for(*contexts)
        on_gpu = self.compiled.devices[0].platform in GPUS
        costs: dict[str, Any] = {
            "free_padding": self.compiled.free_padding,
            "overhead": GPU_OVERHEAD if on_gpu else OVERHEAD,
        }
        self.encoder_tiling, self.decoder_tiling = (
            Tiling(window_sizes, context, **costs) for context in contexts
        )
        on_cpu, count = self.compiled.devices[0].platform == "cpu", len(self.compiled.devices)
        # A window of 1024 latents alone moves as many bytes on an accelerator as one of eight computed
        # together, within one percent: more of them would save little and wait longer for each other.
        in_latents = batch_size == "auto" and not on_cpu
        self.batch_size = BatchSize(
            count if batch_size == "auto" else batch_size,
            count,
            largest=max(window_sizes) if in_latents else None,
            few_programs=not on_cpu,
        )

    @property
    def in_flight(self) -> int:
        """Batches that are on the devices at a time: a CPU gains nothing from a second one in memory."""
        return 1 if self.compiled.devices[0].platform == "cpu" else 2

    @property
    def readers(self) -> int:
        """Files read at a time: one keeps a CPU busy, an accelerator may have to wait for one."""
        return 1 if self.compiled.devices[0].platform == "cpu" else min(_MOST_READERS, os.cpu_count() or 1)

    @property
    def windows_ahead(self) -> int:
        """Windows read before they are asked for: the next batch of an accelerator, two on a CPU."""
        on_cpu = self.compiled.devices[0].platform == "cpu"
        return 2 if on_cpu else max(2, self.batch_size.of(self.encoder_tiling.sizes[-1]))

    def batchers(self) -> tuple[Batcher, Batcher]:
        """Fresh batchers for encoder and decoder."""
        options: dict[str, Any] = {"batch_size": self.batch_size, "in_flight": self.in_flight}
        return Batcher(self.compiled.encode, **options), Batcher(self.compiled.decode, **options)

    def encoder_windows(self, blocks: Iterable[Float[np.ndarray, "T C"]]) -> Iterator[Cut]:
        """Windows of audio at the model's rate."""
        return cut_audio(blocks, self.config, self.encoder_tiling)

    def decoder_windows(self, latents: Float[np.ndarray, "N D"]) -> Iterator[Cut]:
        """Windows of latents after the transformer."""
        return cut_latents(latents, self.decoder_tiling)

    def described(self, mean: Float[np.ndarray, "N D"]) -> Latents:
        """`Latents` for a plain array, as if encoded from the samples that the decoder makes of them."""
        return Latents(
            mean,
            None,
            self.sample_rate,
            sample_count(self.config, len(mean)),
            self.config.io_channels,
            self.fingerprint,
            model_name=self.name,
        )

    def accepted(self, latents: Latents, name: str = "") -> Latents:
        """Refuses latents of another model, and too few latents for the length that they state.

        If there are more than this length needs, as in joined files, all are decoded and the length grows. A
        warning, which begins with `name`, says so.
        """
        if latents.model and latents.model != self.fingerprint:
            theirs = _in_words(latents.model_name, latents.model)
            ours = _in_words(self.name, self.fingerprint)
            raise UserError(f"encoded by another model: {theirs}; this is {ours}")
        if latents.mean.shape[1] != self.config.latent_dim:
            raise UserError(
                f"its latents have {latents.mean.shape[1]} values; this model's have {self.config.latent_dim}"
            )
        samples = max(1, resampled_length(latents.samples, latents.sample_rate, self.sample_rate))
        needed = latents_of(samples, self.config.encoder.strides)
        if needed > len(latents.mean):
            raise UserError(
                f"{latents.samples} samples at {latents.sample_rate} Hz need {needed} latents; "
                f"there are {len(latents.mean)}"
            )
        if len(latents.mean) <= latent_count(self.config, samples):
            return latents
        whole = sample_count(self.config, len(latents.mean))
        length = resampled_length(whole, self.sample_rate, latents.sample_rate)
        logging.warning(
            "%s: holds %d latents, but %d samples at %d Hz need only %d: all are decoded, to %d samples",
            shown(name or latents.name or "latents"),
            len(latents.mean),
            latents.samples,
            latents.sample_rate,
            latent_count(self.config, samples),
            length,
        )
        return dataclasses.replace(latents, samples=length)


def _in_words(name: str, model_fingerprint: str) -> str:
    return f"{name or 'a model without a name'} ({model_fingerprint[:12]}…)"
