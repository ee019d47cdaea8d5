"""The job of two songs: a song between them, decoded from the line between their latents."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from earvae_jax.audio.writer import write
from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.latents import Latents
from earvae_jax.infer.web_app.jobs import Job
from earvae_jax.infer.web_app.limits import LimitedReader, Limits
from earvae_jax.infer.web_app.live_view import Strip, live_view
from earvae_jax.infer.web_app.models import Models
from earvae_jax.infer.web_app.reconstruction import Settings
from earvae_jax.infer.web_app.visitors import Visitor

SECONDS = 20.0  # of each song, from its beginning, so that a move of the slider is heard soon
_KEPT = 2  # songs whose latents a visitor keeps


class Interpolation(Job):
    """Decodes (1 − weight) · a + weight · b, where a and b are mean latents of the beginnings of two songs.

    The result has the shorter one's length and the model's rate. A song that was encoded for this visitor
    before is not encoded again.

    Attributes:
      audio: the result, a WAV file, once it is done.
    """

    def __init__(
        self,
        visitor: Visitor,
        songs: tuple[Path, Path],
        weight: float,
        settings: Settings,
        models: Models,
        limits: Limits,
    ):
        super().__init__(visitor)
        self._songs, self._settings, self._models, self._limits = songs, settings, models, limits
        self._weight = min(max(float(weight), 0.0), 1.0)
        self._strips: list[Strip] = []
        self.audio = visitor.folder / f"between_{round(100 * self._weight)}.wav"

    def view(self) -> str:
        """The work so far as HTML."""
        return live_view(list(self._strips), self.stage, self.share)

    def run(self) -> None:
        """Computes the song between."""
        self.at(self._models.stage(self._settings.model))
        codec = self._models.codec(self._settings.model, self._settings.dtype)
        one, other = (self._encoded(codec, song) for song in self._songs)
        self.at("Decoding")
        audio = codec.decode(between(one.mean, other.mean, self._weight))
        assert isinstance(audio, np.ndarray)  # one piece, not a list
        self._draw(f"Between, {self._weight:.0%} of the second song", audio, codec.sample_rate)
        self.at("Writing")
        for old in self.visitor.folder.glob("between_*.wav"):
            old.unlink(missing_ok=True)
        write(self.audio, audio, codec.sample_rate)

    def _encoded(self, codec: Codec, song: Path) -> Latents:
        self.at(f"Encoding {shown(song.name)}")
        with LimitedReader(song, self._limits) as reader:
            audio, rate = reader.beginning(round(SECONDS * reader.sample_rate)), reader.sample_rate
        self._draw(shown(song.name), audio, rate)
        kept, key = self.visitor.latents, (song, codec.model_fingerprint, self._settings.dtype)
        if key not in kept:
            try:
                latents = codec.encode(audio, sample_rate=rate, name=song.name)
            except UserError as error:
                raise UserError(f"{shown(song.name)}: {error}") from None
            assert isinstance(latents, Latents)  # one piece, not a list
            kept[key] = latents
        kept.move_to_end(key)
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        return kept[key]

    def _draw(self, label: str, audio: np.ndarray, rate: int) -> None:
        strip = Strip(label, len(audio), rate)
        strip.add(audio)
        strip.end()
        self._strips.append(strip)


def between(
    one: Float[np.ndarray, "N D"], other: Float[np.ndarray, "M D"], weight: float
) -> Float[np.ndarray, "K D"]:
    """The point at `weight` on the line between two sequences of latents; K = min(N, M)."""
    length = min(len(one), len(other))
    return ((1 - weight) * one[:length] + weight * other[:length]).astype(np.float32)
