"""`Codec`: audio of any length in constant memory on all local devices, with the whole-file result."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from earvae_jax import demo
from earvae_jax.borders import shown
from earvae_jax.checkpoints import load_with_info
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.infer.engine.pipeline import Pipeline
from earvae_jax.infer.engine.task import LatentKind, Task
from earvae_jax.infer.inputs.audio import AudioInput, audio_input
from earvae_jax.infer.inputs.latents import LatentInput, latent_input
from earvae_jax.infer.inputs.listed import Listed
from earvae_jax.infer.latents import Latents
from earvae_jax.infer.streaming import Stream
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.vae import EarVAE
from earvae_jax.system.compilation_cache import enable_compilation_cache

Given = ArrayLike | os.PathLike[str]  # also torch tensors, `Latents` and strings


class Codec:
    """Encodes and decodes audio of any length and rate in windows, with the result of the whole file at once.

    Args:
      model: an `EarVAE`.
      sample_rate: the model's rate in Hz; required if its config has none.
      dtype: "float32" (exact), "tf32" (float32, products rounded on NVIDIA GPUs) or "bfloat16".
      batch_size: windows computed together. "auto" takes one for each device, on an accelerator as many
        latents in shorter ones.
      devices: the devices to use; default: all local ones.
      window_sizes: sizes of the windows to choose from, in latents.
      model_fingerprint: the checkpoint's fingerprint, if known; else it is computed.
      model_name: stored in the latents, so that an error message can name their model.
      formulation: how encoder and decoder are computed; all give the same numbers up to rounding. "auto" is
        the fastest that was measured on this kind of device. The others are "plain", "chunked" for CPUs,
        "cudnn" and, with kernels of its own, "tails" for GPUs, and "fused" for GPUs and TPUs.
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
        if not isinstance(model, EarVAE):
            raise UserError(f"Codec takes an EarVAE, not a {type(model).__name__}; Codec.load takes a path")
        enable_compilation_cache()
        self.engine = Engine(
            model,
            sample_rate=sample_rate,
            dtype=dtype,
            batch_size=batch_size,
            devices=devices,
            window_sizes=window_sizes,
            model_fingerprint=model_fingerprint,
            model_name=model_name,
            formulation=formulation,
        )

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.engine.config

    @property
    def sample_rate(self) -> int:
        """The model's sample rate in Hz."""
        return self.engine.sample_rate

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model's weights; its latents carry it."""
        return self.engine.fingerprint

    @classmethod
    def load(cls, path: str | Path | None = None, **options: Any) -> "Codec":
        """Loads what `earvae_jax.load` takes, by default the bundled demo model.

        `options` are those of the constructor.
        """
        model, info = load_with_info(path)
        if model.config.sample_rate is None and not options.get("sample_rate"):
            raise UserError(
                f"{shown(str(path))}: its config does not say the model's sample rate: convert the weights "
                "again with --sample-rate, or pass sample_rate in Python"
            )
        name = Path(demo.MODEL if path is None else path).resolve().name
        return cls(model, model_fingerprint=info.fingerprint, model_name=name, **options)

    def encode(
        self, audio: Given | Sequence[Given], *, sample_rate: int | None = None, name: str = ""
    ) -> Latents | list[Latents]:
        """Encodes audio of any rate, mono or in the model's channels; N = ⌈T·rate/sample_rate / ratio⌉.

        Args:
          audio: an array [T, C], or [T] for mono, of NumPy, JAX or torch, with floats or integer PCM, which
            is scaled (`audio_input`); the path of a file; or a list of these. A list gives a list in the
            same order, and the windows of its items share batches.
          sample_rate: rate of arrays in Hz; default: the model's. A file states its own.
          name: stored in the latents; default: the file's name.

        Raises:
          UserError: the audio has a wrong type or shape, is empty or is not finite, or a file cannot be read.
            The message about an item of a list begins with its place, as in audio[3].
        """

        def task(item: AudioInput, keep: Callable[[Latents], None]) -> Task:
            return Task(name or item.name, audio=item.open, keep=keep, in_memory=self._in_memory(item))

        inputs = self._audio_inputs(audio, sample_rate)
        return self._results(inputs, task)

    def decode(
        self, latents: Given | Sequence[Given]
    ) -> Float[np.ndarray, "T C"] | list[Float[np.ndarray, "T C"]]:
        """Decodes latents to audio with the length, rate and channels that were encoded; [T, 1] for mono.

        Args:
          latents: the result of `encode`; the path of a file that `earvae encode` wrote; a plain array of
            floats [N, D], which gives what `EarVAE.decode` makes of it: N·ratio samples at the model's rate,
            or a few less where a stride is odd; or a list of these, which gives a list.

        Raises:
          UserError: the latents are of another model, type or shape, or a file cannot be read. Messages about
            items of a list are as in `encode`.
        """

        def task(item: LatentInput, keep: Callable[[np.ndarray], None]) -> Task:
            return Task("", latents=item.read, write=_gathering(keep), in_memory=not item.shown)

        options: dict[str, Any] = {"dim": self.config.latent_dim, "describe": self.engine.described}
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
        """Encodes and decodes, keeping shape and rate; arguments and errors are those of `encode`.

        The result is always a NumPy array of float32 with full scale 1: [T] for [T], [T, C] for a file.
        The noise of sampled latents depends only on seed, name and latent index.
        """

        def task(item: AudioInput, keep: Callable[[np.ndarray], None]) -> Task:
            def keep_shape(audio: np.ndarray) -> None:
                keep(audio[:, 0] if item.flat else audio)

            options: dict[str, Any] = {"latent": latent, "seed": seed, "in_memory": self._in_memory(item)}
            return Task(name or item.name, audio=item.open, write=_gathering(keep_shape), **options)

        inputs = self._audio_inputs(audio, sample_rate)
        return self._results(inputs, task)

    def stream(self, *, block: int = 8, past: int = 256, future: int = 8) -> Stream:
        """Begins to encode and decode a piece of audio block by block as it comes; see `Stream`.

        Args:
          block: latents computed together: more are faster and wait longer.
          past, future: latents that a model's transformer sees before and after a block.
        """
        return Stream(self.engine, block=block, past=past, future=future)

    def run(self, tasks: Iterable[Task], done: Callable[[int, UserError | None], None]) -> None:
        """Runs many tasks: windows of different files share batches; reading and writing overlap computing.

        `done` is called with the position of each finished task and the error that ended it, if any.
        """
        Pipeline(self.engine, done).run(tasks)

    def _in_memory(self, item: AudioInput) -> bool:
        return item.array_rate == self.sample_rate

    def _audio_inputs(self, audio: Any, sample_rate: int | None) -> Listed[AudioInput]:
        options = {"channels": self.config.io_channels, "default_rate": self.sample_rate}
        return Listed.of(audio, "audio", functools.partial(audio_input, sample_rate=sample_rate, **options))

    def _results(self, inputs: Listed, task: Callable[[Any, Callable[[Any], None]], Task]) -> Any:
        """Runs a task for each input and returns what the tasks keep: a list for a list."""
        results: list[Any] = [None] * len(inputs.items)

        def done(place: int, error: UserError | None) -> None:
            if error is not None:
                raise inputs.explained(place, error, inputs.items[place].shown) from None

        keeps = (functools.partial(results.__setitem__, place) for place in range(len(results)))
        self.run([*map(task, inputs.items, keeps)], done)
        return inputs.answer(results)


def _gathering(keep: Callable[[np.ndarray], None]) -> Callable[[Iterator[np.ndarray], Latents], None]:
    """A writer that joins all decoded blocks, at least one sample, and passes the array to `keep`."""

    def write(blocks: Iterator[np.ndarray], latents: Latents) -> None:
        whole, written = np.empty((latents.samples, latents.channels), np.float32), 0
        for block in blocks:
            whole[written : written + len(block)] = block
            written += len(block)
        keep(whole)

    return write
