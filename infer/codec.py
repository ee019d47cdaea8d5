"""`Codec`: any length, exactly the whole-file answer, constant memory, all local devices."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from absl import logging
from jaxtyping import Float
from numpy.typing import ArrayLike

from earvae_jax import demo
from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.resampling import Resampler, resampled_length
from earvae_jax.borders import shown
from earvae_jax.checkpoints import load_with_info
from earvae_jax.errors import UserError
from earvae_jax.infer.audio_input import AudioInput, audio_input
from earvae_jax.infer.engine.batching import Batcher
from earvae_jax.infer.engine.compiled import CompiledModel
from earvae_jax.infer.engine.cutting import Cut, cut_audio, cut_latents, latent_count
from earvae_jax.infer.engine.pipeline import NOT_FINITE, Pipeline, Task
from earvae_jax.infer.engine.receptive_field import decoder_context, encoder_context
from earvae_jax.infer.engine.tiling import Tiling, sizes_for
from earvae_jax.infer.latent_input import LatentInput, latent_input
from earvae_jax.infer.latents import Latents
from earvae_jax.infer.listed import Listed
from earvae_jax.model.lengths import latents_of
from earvae_jax.model.vae import EarVAE
from earvae_jax.parameters import fingerprint, named_arrays
from earvae_jax.system.compilation_cache import enable_compilation_cache

LatentKind = Literal["mean", "sample"]
Given = ArrayLike | os.PathLike[str]  # torch tensors, `Latents` and text among them
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
        if not isinstance(model, EarVAE):
            raise UserError(f"Codec takes an EarVAE, not a {type(model).__name__}; Codec.load takes a path")
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
    def load(cls, path: str | Path | None = None, **options: Any) -> "Codec":
        """The codec of a checkpoint, or of the bundled demo model; `options` as for the constructor."""
        model, info = load_with_info(path)
        name = Path(demo.MODEL if path is None else path).resolve().name
        return cls(model, model_fingerprint=info.fingerprint, model_name=name, **options)

    def encode(
        self, audio: Given | Sequence[Given], *, sample_rate: int | None = None, name: str = ""
    ) -> Latents | list[Latents]:
        """Latents of audio at any rate, mono or in the model's channels; N = ⌈T·rate/sample_rate / ratio⌉.

        Args:
          audio: [T, C], or [T] for mono; NumPy's, JAX's or torch's, of floats or of integer PCM, which is
            scaled (`audio_input`). Or the path of a file. Or a list of any of these, which gives a list in
            the same order; the windows of all of them share batches.
          sample_rate: of arrays, in Hz; default: the model's. A file knows its own.
          name: goes into the latents; default: that of the file.

        Raises:
          UserError: audio of another kind or shape, empty, or not finite; a file that cannot be read. What is
            wrong with an item of a list begins with its place, as in audio[3].
        """

        def task(item: AudioInput, keep: Callable[[Latents], None]) -> Task:
            return Task(name or item.name, audio=item.open, keep=keep)

        inputs = self._audio_inputs(audio, sample_rate)
        return self._results(inputs, task)

    def decode(
        self, latents: Given | Sequence[Given]
    ) -> Float[np.ndarray, "T C"] | list[Float[np.ndarray, "T C"]]:
        """Audio of the length, rate and channels that were encoded, [T, 1] where that was mono.

        Args:
          latents: what `encode` gave; the path of a file that `earvae encode` wrote; a plain array of floats
            [N, D], which gives N·ratio samples at the model's rate; or a list of any of these, which gives a
            list.

        Raises:
          UserError: latents of another model, kind or shape; a file that cannot be read. For an item of a
            list as in `encode`.
        """

        def task(item: LatentInput, keep: Callable[[np.ndarray], None]) -> Task:
            return Task("", latents=item.read, write=_gathering(keep))

        options: dict[str, Any] = {"dim": self.config.latent_dim, "describe": self._described_latents}
        inputs = Listed.of(latents, "latents", functools.partial(latent_input, **options))
        return self._results(inputs, task)

    def reconstruct(
        self,
        audio: Given | Sequence[Given],
        *,
        sample_rate: int | None = None,
        latent: LatentKind = "mean",
        seed: int = 0,
        name: str = "",
    ) -> Float[np.ndarray, "T C"] | list[Float[np.ndarray, "T C"]]:
        """Encodes and decodes; arguments and errors as `encode`. Shape and rate are those that were given.

        The result is float32 of full scale 1 in NumPy, whatever came in: [T] for [T], [T, C] for a file.
        Sampled latents take noise that depends on seed, name and latent index alone.
        """

        def task(item: AudioInput, keep: Callable[[np.ndarray], None]) -> Task:
            def keep_shape(audio: np.ndarray) -> None:
                keep(audio[:, 0] if item.flat else audio)

            write = _gathering(keep_shape)
            return Task(name or item.name, audio=item.open, write=write, latent=latent, seed=seed)

        inputs = self._audio_inputs(audio, sample_rate)
        return self._results(inputs, task)

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

    def _audio_inputs(self, audio: Any, sample_rate: int | None) -> Listed[AudioInput]:
        options = {"channels": self.config.io_channels, "default_rate": self.sample_rate}
        return Listed.of(audio, "audio", functools.partial(audio_input, sample_rate=sample_rate, **options))

    def _described_latents(self, mean: Float[np.ndarray, "N D"]) -> Latents:
        samples = len(mean) * self.config.downsampling_ratio
        return Latents(
            mean,
            np.zeros_like(mean),
            self.sample_rate,
            samples,
            self.config.io_channels,
            self.model_fingerprint,
            model_name=self.model_name,
        )

    def _results(self, inputs: Listed, task: Callable[[Any, Callable[[Any], None]], Task]) -> Any:
        """What the tasks of all inputs keep, a list for a list."""
        results: list[Any] = [None] * len(inputs.items)

        def done(place: int, error: UserError | None) -> None:
            if error is not None:
                raise inputs.explained(place, error, inputs.items[place].shown) from None

        keeps = (functools.partial(results.__setitem__, place) for place in range(len(results)))
        self.run(map(task, inputs.items, keeps), done)
        return inputs.answer(results)

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


def _gathering(keep: Callable[[np.ndarray], None]) -> Callable[[Iterator[np.ndarray], Latents], None]:
    """A writer that keeps all decoded blocks as one array."""

    def write(blocks: Iterator[np.ndarray], _: Latents) -> None:
        keep(np.concatenate(list(blocks)))

    return write
