"""The job of a song: encode, decode, measure, and the files and the report that come of it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earvae_jax.audio.writer import writing
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.commands.made_with import comment, made_with
from earvae_jax.infer.engine.noise import check_seed
from earvae_jax.infer.engine.task import Half, LatentKind, Task
from earvae_jax.infer.evaluation.evaluate import Evaluation, evaluate_files
from earvae_jax.infer.evaluation.pairs import Pair
from earvae_jax.infer.evaluation.report import report_page
from earvae_jax.infer.latents import Latents, write_latents
from earvae_jax.infer.web_app.jobs import Job
from earvae_jax.infer.web_app.limits import LimitedReader, Limits
from earvae_jax.infer.web_app.live_view import Strip, live_view
from earvae_jax.infer.web_app.models import Models
from earvae_jax.infer.web_app.visitors import Visitor


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a visitor chose."""

    model: str  # a name of `Models`
    dtype: str = "float32"
    latent: LatentKind = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.latent not in ("mean", "sample"):
            raise UserError(f"{self.latent}: latents are the mean or a sample")
        check_seed(self.seed)

    @property
    def words(self) -> str:
        """As outputs record them."""
        return "mean" if self.latent == "mean" else f"sample, seed {self.seed}"


class Reconstruction(Job):
    """Encodes and decodes a song as `earvae reconstruct` does, and measures it as its report does.

    Attributes, once it is done:
      audio: the reconstruction, a WAV file of the song's rate and length.
      latents: a file that `earvae decode` takes.
      report: the report of this one song, a page of HTML.
    """

    def __init__(self, visitor: Visitor, song: Path, settings: Settings, models: Models, limits: Limits):
        super().__init__(visitor)
        self._song, self._settings, self._models, self._limits = song, settings, models, limits
        self._strips: list[Strip] = []
        self.audio = visitor.folder / f"{song.stem}_vae_rec.wav"
        self.latents = visitor.folder / f"{song.stem}.npz"
        self.report = ""
        self.decoded = False  # whether both files are there

    def view(self) -> str:
        """The work so far as HTML."""
        return live_view(list(self._strips), self.stage, self.share)

    def run(self) -> None:
        """Computes everything."""
        self.at(self._models.stage(self._settings.model))
        codec = self._models.codec(self._settings.model, self._settings.dtype)
        for pattern in ("*_vae_rec.wav", "*.npz"):  # of this visitor's song before
            for old in self.visitor.folder.glob(pattern):
                old.unlink(missing_ok=True)
        self.at("Encoding", 0.0)
        with LimitedReader(self._song, self._limits, self._hear) as reader:
            self._strips = [
                Strip(label, reader.samples, reader.sample_rate) for label in ("Original", "Reconstruction")
            ]
            seconds = reader.samples / reader.sample_rate
        total = max(seconds * codec.sample_rate / codec.config.downsampling_ratio, 1.0)

        def watch(half: Half, latent: int) -> None:
            self.at("Encoding" if half == "encoder" else "Decoding", latent / total)

        errors: list[UserError] = []
        task = Task(
            self._song.name,
            audio=lambda: LimitedReader(self._song, self._limits, self._hear),
            keep=lambda latents: self._keep(codec, latents),
            write=lambda blocks, latents: self._write(codec, blocks, latents),
            latent=self._settings.latent,
            seed=self._settings.seed,
            watch=watch,
        )
        codec.run([task], lambda _, error: errors.append(error) if error else None)
        if errors:
            name = shown(self._song.name)
            raise errors[0] if str(errors[0]).startswith(name) else UserError(f"{name}: {errors[0]}")
        self.at("Measuring")
        self.decoded = True
        result = evaluate_files(Pair(shown(self._song.name), self._song, self.audio))
        self.at("Drawing the report")
        model = codec.engine.name.removesuffix(".safetensors")
        self.report = report_page(
            Evaluation(f"{model}, {self._settings.dtype}, {self._settings.words}", [result], {})
        )

    def _hear(self, block: np.ndarray) -> None:
        self._strips[0].add(block)

    def _keep(self, codec: Codec, latents: Latents) -> None:
        self._strips[0].end()
        described = {
            "model_sample_rate": codec.sample_rate,
            "downsampling_ratio": codec.config.downsampling_ratio,
            "compute_dtype": self._settings.dtype,
        }
        write_latents(self.latents, latents, metadata=described)

    def _write(self, codec: Codec, blocks: Iterator[np.ndarray], latents: Latents) -> None:
        maker = made_with(codec.model_fingerprint, self._settings.dtype, self._settings.words)
        with writing(
            self.audio,
            sample_rate=latents.sample_rate,
            channels=latents.channels,
            samples=latents.samples,
            comment=comment(maker),
        ) as file:
            for block in blocks:
                file.write(block)
                self._strips[1].add(block)
        self._strips[1].end()
