"""`Stream`: encodes and decodes blocks as they come, with a fixed latency, for live use."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from earvae_jax.arrays import host_array, is_floating
from earvae_jax.errors import UserError
from earvae_jax.infer.engine.cutting import latent_count, sample_count
from earvae_jax.infer.engine.engine import Engine
from earvae_jax.receptive_field import Reach, decoder_context, encoder_context

# (values [W, X], start, stop) -> values [W', Y]; `start` and `stop` are where the piece begins and ends in
# the window, in rows.
Function = Callable[[np.ndarray, int, int], np.ndarray]


class Stream:
    """Takes blocks of any length and returns what can be known by then; made by `Codec.stream`.

    A stream is one piece of audio, from its beginning to `last=True`. Encoding gives the latents of the whole
    file, and a decoder without transformer gives its audio: a value is returned once all that it sees has
    come, `block` latents at a time. A transformer sees the whole file; here it sees, for each block, `past`
    latents before it and `future` ones after it, so the result is near that of the whole file and not equal.

    Attributes:
      encoder_latency: samples; after n samples the latents of the first n − encoder_latency were returned.
      decoder_latency: samples; after m latents the first m·ratio − decoder_latency samples were returned.
      latency: their sum, which is that of `reconstruct`.
    """

    def __init__(self, engine: Engine, *, block: int, past: int, future: int):
        for name, value, least in (("block", block, 1), ("past", past, 0), ("future", future, 0)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name}={value!r}: expected a number of latents, at least {least}")
        config, self._transform = engine.config, engine.compiled.transform
        self._config, ratio = config, config.downsampling_ratio
        seen, heard = encoder_context(config), decoder_context(config)
        encode, decode = (
            self._single(half, engine) for half in (self._mean_of(engine), engine.compiled.decode)
        )
        self._encoding = _Steps(encode, block, seen, of=ratio, to=1)
        self._attending = None
        self._decoding = _Steps(decode, block, heard, of=1, to=ratio)
        self.encoder_latency = (block + seen.right) * ratio
        self.decoder_latency = (block + heard.right) * ratio
        if config.transformer is not None:
            self._attending = _Steps(self._attended, block, Reach(past, future), of=1, to=1)
            self.decoder_latency += (block + future) * ratio
        self.latency = self.encoder_latency + self.decoder_latency
        self._samples_in = self._latents_in = self._samples_decoded = self._samples_out = 0
        self._audio_ended = self._latents_ended = False

    def encode(self, audio: ArrayLike, *, last: bool = False) -> Float[np.ndarray, "N D"]:
        """The means that are known with these samples, N ≥ 0.

        Args:
          audio: [T, C] floats of full scale 1 at the model's rate, T ≥ 0.
          last: no more samples come: the rest is returned, ⌈samples / ratio⌉ latents in all.

        Raises:
          UserError: the audio has another shape or type, is not finite, or comes after the last.
        """
        samples = self._checked(audio, "audio", self._config.io_channels, self._audio_ended)
        self._samples_in, self._audio_ended = self._samples_in + len(samples), last
        latents = latent_count(self._config, self._samples_in) if last and self._samples_in else 0
        return self._encoding.take(samples, latents if last else None, self._config.latent_dim)

    def decode(self, latents: ArrayLike, *, last: bool = False) -> Float[np.ndarray, "T C"]:
        """The samples that are known with these latents, T ≥ 0.

        Args:
          latents: [N, D] floats, N ≥ 0.
          last: no more latents come: the rest is returned.

        Raises:
          UserError: the latents have another shape or type, are not finite, or come after the last.
        """
        values = self._checked(latents, "latents", self._config.latent_dim, self._latents_ended)
        self._latents_in, self._latents_ended = self._latents_in + len(values), last
        end = self._latents_in if last else None
        if self._attending is not None:
            values = self._attending.take(values, end, self._config.latent_dim)
        made = self._decoding.take(values, end, self._config.io_channels)
        if last:  # where a stride is odd, the decoder makes a few samples less
            made = made[: sample_count(self._config, self._latents_in) - self._samples_decoded]
        self._samples_decoded += len(made)
        return made

    def reconstruct(self, audio: ArrayLike, *, last: bool = False) -> Float[np.ndarray, "T C"]:
        """Encodes and decodes; with `last`, as many samples as came have been returned in all."""
        made = self.decode(self.encode(audio, last=last), last=last)[: self._samples_in - self._samples_out]
        self._samples_out += len(made)
        return made

    @staticmethod
    def _mean_of(engine: Engine) -> Callable:
        return lambda *window: engine.compiled.encode(*window)[0]

    @staticmethod
    def _single(half: Callable, engine: Engine) -> Function:
        """`half` for one window; where there are several devices the others compute nothing of use."""
        count = len(engine.compiled.devices)

        def run(values: np.ndarray, start: int, stop: int) -> np.ndarray:
            batch = np.zeros((count, *values.shape), np.float32)
            batch[0] = values
            limits = (np.asarray([limit, *[0] * (count - 1)], np.int32) for limit in (start, stop))
            return np.asarray(half(batch, *limits))[0]

        return run

    def _attended(self, values: np.ndarray, start: int, stop: int) -> np.ndarray:
        seen = slice(max(start, 0), min(stop, len(values)))
        result = np.zeros_like(values)
        result[seen] = self._transform(values[seen])
        return result

    @staticmethod
    def _checked(given: ArrayLike, what: str, columns: int, ended: bool) -> Float[np.ndarray, "M X"]:
        values = host_array(given, what)
        if values.ndim != 2 or values.shape[1] != columns:
            raise UserError(f"{what} of a stream: shape {list(values.shape)}; expected [any, {columns}]")
        if not is_floating(values.dtype):
            raise UserError(f"{what} of a stream: {values.dtype} values; expected floats")
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            raise UserError(f"{what} of a stream: NaN or infinite values")
        if ended:
            raise UserError(f"{what} of a stream: more came after the last: begin another stream")
        return values


class _Steps:
    """Runs a function on what comes, `block` latents at a time with their context on both sides.

    Args:
      function: what to run; it sees a block of latents with their context, zeros where there are none.
      block: latents of a step.
      context: latents that a step sees besides.
      of: rows that come for each latent.
      to: rows that `function` makes of each latent.
    """

    def __init__(self, function: Function, block: int, context: Reach, *, of: int, to: int):
        self._function, self._block, self._context, self._of, self._to = function, block, context, of, to
        self._held: np.ndarray | None = None  # rows from latent `_done − context.left` on
        self._done = 0  # latents

    def take(self, rows: np.ndarray, end: int | None, columns: int) -> np.ndarray:
        """Takes rows and returns those of the next steps; with `end`, the number of all latents, the rest."""
        left, right = self._context
        before = np.zeros((left * self._of, rows.shape[1]), np.float32) if self._held is None else self._held
        held = np.concatenate([before, rows])
        size = left + self._block + right
        made = [np.zeros((0, columns), np.float32)]
        while self._done < end if end is not None else len(held) >= size * self._of:
            window = np.zeros((size * self._of, held.shape[1]), np.float32)
            part = held[: len(window)]
            window[: len(part)] = part
            begin = self._done - left
            rest = size + 1 if end is None else min(end - begin, size + 1)
            start = max(-begin, -1)  # clipped just outside the window
            result = self._function(window, start * self._of, rest * self._of)
            count = self._block if end is None else min(self._block, end - self._done)
            made.append(result[left * self._to : (left + count) * self._to])
            self._done += count
            held = held[count * self._of :]
        self._held = held
        return np.concatenate(made)
