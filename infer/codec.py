"""`Codec`: any length, exactly the whole-file answer, constant memory, all local devices."""

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from earvae_jax import demo
from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.resampling import Resampler, resampled_length
from earvae_jax.checkpoints import load_with_info
from earvae_jax.compilation_cache import enable_compilation_cache
from earvae_jax.errors import UserError, shown
from earvae_jax.lengths import latents_of
from earvae_jax.parameters import fingerprint, named_arrays
from earvae_jax.vae import EarVAE

from .batching import Batcher
from .compiled import CompiledModel
from .cutting import Cut, cut_audio, cut_latents, latent_count
from .latents import Latents
from .pipeline import NOT_FINITE, Pipeline, Task
from .receptive_field import decoder_context, encoder_context
from .tiling import Tiling, sizes_for

LatentKind = Literal["mean", "sample"]
_NOISE_BLOCK = 1024  # latents whose noise comes from one key
_GIGABYTE = 1 << 30


class Codec:
    """Encodes and decodes audio of any length and rate, in windows whose kept parts are exact.

    Args:
      model: an `EarVAE`.
      sample_rate: of the model, in Hz, where its config does not say it.
      dtype: "float32" (exact), "tf32" (float32 with an NVIDIA GPU's rounded products) or "bfloat16".
      batch_size: windows computed together, or "auto": one for each CPU device, what the memory of an
        accelerator holds.
      devices: default all local ones.
      window_sizes: latents of the windows to choose from.
      model_fingerprint: as the checkpoint has it, so that it is not computed again.
      model_name: goes into the latents, so that a refusal can name their model.
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
    ):
        enable_compilation_cache()
        self.config = model.config
        rate = sample_rate or model.config.sample_rate
        if rate is None:
            raise UserError("the model's config does not say its sample rate: pass sample_rate")
        self.sample_rate: int = rate
        self.model_fingerprint = model_fingerprint or fingerprint(named_arrays(model))
        self.model_name = model_name
        self.compiled = CompiledModel(model, dtype=dtype, devices=devices)
        padding = {"free_padding": self.compiled.free_padding}
        contexts = encoder_context(model.config), decoder_context(model.config)
        window_sizes = window_sizes or sizes_for(*contexts)
        self.encoder_tiling, self.decoder_tiling = (Tiling(window_sizes, c, **padding) for c in contexts)
        self.batch_size = self._batch_size(batch_size, max(window_sizes))

    @classmethod
    def load(cls, path: str | Path | None = None, **options) -> "Codec":
        """The codec of a checkpoint, or of the bundled demo model; `options` as for the constructor."""
        model, info = load_with_info(path)
        name = Path(demo.MODEL if path is None else path).resolve().name
        return cls(model, model_fingerprint=info.fingerprint, model_name=name, **options)

    def encode(
        self, audio: Float[np.ndarray, "T C"], *, sample_rate: int | None = None, name: str = ""
    ) -> Latents:
        """Latents of audio at any rate, mono or in the model's channels; N = ⌈T·rate/sample_rate / ratio⌉.

        Raises:
          UserError: audio of another shape, empty, or not finite.
        """
        results: list[Latents] = []
        self._run_one(Task(name, audio=self._array(audio, sample_rate), keep=results.append))
        return results[0]

    def decode(self, latents: Latents | Float[np.ndarray, "N D"]) -> Float[np.ndarray, "T C"]:
        """Audio of the length, rate and channels that were encoded.

        A plain array [N, D] gives N·ratio samples at the model's rate.
        """
        if not isinstance(latents, Latents):
            latents = self._plain(np.asarray(latents, np.float32))
        return self._collect(Task(latents.name, latents=lambda: latents))

    def reconstruct(
        self,
        audio: Float[np.ndarray, "T C"],
        *,
        sample_rate: int | None = None,
        latent: LatentKind = "mean",
        seed: int = 0,
        name: str = "",
    ) -> Float[np.ndarray, "T C"]:
        """Encodes and decodes; same length, rate and channels as given.

        Sampled latents take noise that depends on seed, name and latent index alone.
        """
        source = self._array(audio, sample_rate)
        return self._collect(Task(name, audio=source, latent=latent, seed=seed))

    def run(self, tasks: Iterable[Task], done: Callable[[int, UserError | None], None]) -> None:
        """Runs many tasks; windows of different files share batches, reading and writing overlap computing.

        `done` is called with the position of each task that is finished, and the error that ended it, if any.
        """
        Pipeline(self, done).run(tasks)

    def batchers(self) -> tuple[Batcher, Batcher]:
        """Fresh batchers for encoder and decoder."""
        on_cpu = self.compiled.devices[0].platform == "cpu"
        options = {
            "batch_size": self.batch_size,
            "multiple": len(self.compiled.devices),
            # A CPU gains nothing from a second batch in memory.
            "in_flight": 1 if on_cpu else 2,
        }
        return Batcher(self.compiled.encode, **options), Batcher(self.compiled.decode, **options)

    def encoder_cuts(self, blocks: Iterable[Float[np.ndarray, "T C"]]) -> Iterator[Cut]:
        """Windows of audio at the model's rate."""
        return cut_audio(blocks, self.config, self.encoder_tiling)

    def decoder_cuts(self, latents: Float[np.ndarray, "N D"]) -> Iterator[Cut]:
        """Windows of latents after the transformer."""
        return cut_latents(latents, self.decoder_tiling)

    def noise(self, shape: tuple[int, int], seed: int, name: str) -> Float[np.ndarray, "N D"]:
        """Standard normal noise for the latents of one file; the same for any windows and devices."""
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(os.fsencode(name)))
        count, dim = shape
        blocks = [
            np.asarray(jax.random.normal(jax.random.fold_in(key, block), (_NOISE_BLOCK, dim)))
            for block in range(-(-count // _NOISE_BLOCK))
        ]
        return np.concatenate(blocks)[:count]

    def to_output(
        self, blocks: Iterable[Float[np.ndarray, "T C"]], latents: Latents
    ) -> Iterator[Float[np.ndarray, "T2 C2"]]:
        """Decoded audio at the rate, in the channels and of the length of what was encoded."""
        at_model_rate = resampled_length(latents.samples, latents.sample_rate, self.sample_rate)
        resampler = Resampler(self.sample_rate, latents.sample_rate, latents.channels)
        left, written = at_model_rate, 0
        for block in blocks:
            if not np.isfinite(block).all():
                raise UserError(NOT_FINITE)
            block = to_channels(block[:left], latents.channels)
            left -= len(block)
            block = resampler(block)[: latents.samples - written]
            written += len(block)
            yield block
        block = resampler(np.zeros((0, latents.channels), np.float32), last=True)[: latents.samples - written]
        yield block
        # Rates that do not divide can leave the way back a sample short.
        yield np.zeros((latents.samples - written - len(block), latents.channels), np.float32)

    def accepted(self, latents: Latents) -> Latents:
        """Refuses latents of another model, and fewer than the audio that they are said to be of needs.

        Where there are more of them, as in files that were joined, all are decoded: the length is theirs.
        """
        if latents.model and latents.model != self.model_fingerprint:
            theirs = _described(latents.model_name, latents.model)
            ours = _described(self.model_name, self.model_fingerprint)
            raise UserError(f"encoded by another model: {theirs}; this is {ours}")
        if latents.mean.shape[1] != self.config.latent_dim:
            raise UserError(
                f"latents of {latents.mean.shape[1]} values; this model has {self.config.latent_dim}"
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
        whole = len(latents.mean) * self.config.downsampling_ratio
        length = resampled_length(whole, self.sample_rate, latents.sample_rate)
        logging.warning(
            "%s: holds %d latents, and %d samples at %d Hz need %d: all are decoded, to %d samples",
            shown(latents.name or "latents"),
            len(latents.mean),
            latents.samples,
            latents.sample_rate,
            latent_count(self.config, samples),
            length,
        )
        return dataclasses.replace(latents, samples=length)

    def _plain(self, mean: Float[np.ndarray, "N D"]) -> Latents:
        if mean.ndim != 2 or not len(mean):
            raise UserError(f"latents have shape {mean.shape}; expected [latents, {self.config.latent_dim}]")
        samples = len(mean) * self.config.downsampling_ratio
        channels = self.config.io_channels
        return Latents(
            mean,
            np.zeros_like(mean),
            self.sample_rate,
            samples,
            channels,
            self.model_fingerprint,
            model_name=self.model_name,
        )

    def _collect(self, task: Task) -> Float[np.ndarray, "T C"]:
        blocks: list[np.ndarray] = []

        def write(items: Iterator[np.ndarray], latents: Latents) -> None:
            blocks.extend(items)

        self._run_one(dataclasses.replace(task, write=write))
        return np.concatenate(blocks)

    def _run_one(self, task: Task) -> None:
        def done(_: int, error: UserError | None) -> None:
            if error is not None:
                raise error

        self.run([task], done)

    def _array(
        self, audio: Float[np.ndarray, "T C"], sample_rate: int | None
    ) -> "Callable[[], _ArrayReader]":
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2:
            raise UserError(f"audio has shape {audio.shape}; expected [samples, channels]")
        if not len(audio):
            raise UserError("audio holds no samples")
        if not np.isfinite(audio).all():
            raise UserError(f"audio holds {int(np.sum(~np.isfinite(audio)))} NaN or infinite samples")
        return lambda: _ArrayReader(audio, sample_rate or self.sample_rate)

    def _batch_size(self, asked: int | Literal["auto"], largest: int) -> int:
        devices = self.compiled.devices
        if asked != "auto":
            return asked
        if devices[0].platform == "cpu":
            return len(devices)
        # About eight arrays of the widest level are alive at a time; half of the memory is left to XLA.
        widest = max(self.config.encoder.channels, self.config.decoder.channels)
        window = 8 * 4 * widest * largest * self.config.downsampling_ratio
        memory = (devices[0].memory_stats() or {}).get("bytes_limit", 8 * _GIGABYTE)
        return len(devices) * max(1, min(32, memory // 2 // window))


def _described(name: str, model_fingerprint: str) -> str:
    return f"{name or 'a model without a name'} ({model_fingerprint[:12]}…)"


class _ArrayReader:
    """An array with the reading interface of `AudioReader`."""

    def __init__(self, audio: Float[np.ndarray, "T C"], sample_rate: int):
        self.sample_rate, self.channels = sample_rate, audio.shape[1]
        self._audio = audio

    def __enter__(self) -> "_ArrayReader":
        return self

    def __exit__(self, *exception) -> None:
        pass

    def blocks(self, size: int) -> Iterator[Float[np.ndarray, "T C"]]:
        for start in range(0, len(self._audio), size):
            yield self._audio[start : start + size]
