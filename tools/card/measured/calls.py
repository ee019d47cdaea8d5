"""Where the time of a call of the codec goes beside the card's computing.

Whole calls for one window in bfloat16, from array to array, and what they are made of, each by itself: copies
to and from the card, programs whose inputs are there, the transformer.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from earvae_jax.infer.codec import Codec
from tools.card.measured.part import Asked, run

_LATENTS, _SMALL_LATENTS = 1024, 64
_REPEATS, _SMALL_REPEATS = 12, 3


def measure(asked: Asked) -> dict[str, Any]:
    """A row for each kind of call: its median, least and most in seconds, of calls one after the other."""
    codec = Codec(asked.model(), dtype="bfloat16")
    count = _SMALL_LATENTS if asked.small else _LATENTS
    repeats = _SMALL_REPEATS if asked.small else _REPEATS
    rows = []
    for name, call in {**_whole(codec, count), **_pieces(codec, count)}.items():
        call()  # compiles
        times = sorted(_timed(call) for _ in range(repeats))
        rows.append(
            {"call": name, "median": statistics.median(times), "fastest": times[0], "slowest": times[-1]}
        )
    return {"latents": count, "rows": rows}


def _values(codec: Codec, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    samples = count * codec.config.downsampling_ratio
    audio = 0.1 * random.standard_normal((samples, codec.config.io_channels), np.float32)
    return audio, random.standard_normal((count, codec.config.latent_dim), np.float32)


def _whole(codec: Codec, count: int) -> dict[str, Callable[[], object]]:
    audio, latents = _values(codec, count)
    return {
        "encode": lambda: codec.encode(audio),
        "decode": lambda: codec.decode(latents),
        "round trip": lambda: codec.reconstruct(audio),
    }


def _pieces(codec: Codec, count: int) -> dict[str, Callable[[], object]]:
    compiled = codec.engine.compiled
    audio, latents = (values[None] for values in _values(codec, count))
    extent = np.zeros(1, np.int32), np.full(1, 1 << 30, np.int32)
    audio_there, latents_there = jax.block_until_ready(jax.device_put((audio, latents), compiled.devices[0]))

    def read_back() -> None:
        decoded = compiled.decode(latents_there, *extent)
        decoded.copy_to_host_async()
        np.asarray(decoded)

    return {
        "audio to the card": lambda: jax.block_until_ready(jax.device_put(audio, compiled.devices[0])),
        "encoder, audio there": lambda: jax.block_until_ready(compiled.encode(audio_there, *extent)),
        "encoder, audio here": lambda: jax.block_until_ready(compiled.encode(audio, *extent)),
        "transformer": lambda: compiled.transform(latents[0]),
        "decoder, latents there": lambda: jax.block_until_ready(compiled.decode(latents_there, *extent)),
        "decoder, audio back here": read_back,
        "copy of the audio here": audio.copy,
    }


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    run(measure, __doc__)
