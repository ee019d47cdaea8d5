"""Encoder and decoder on the card alone: their time, and the share of its measured peaks that they reach.

Inputs and outputs stay on the card. The peak of each format is that of a product of two square matrices of
random numbers, the bandwidth that of adding a number to a large array. Bytes are those of the compiled
program, caches left out, and operations those of the direct convolutions.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earvae_jax.errors import UserError
from earvae_jax.infer.benchmark.convolution_peak import operations_per_latent
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.compiled import DTYPES
from earvae_jax.model.vae import EarVAE
from earvae_jax.targets.reading import read
from tools.card.measured.part import Asked, run
from tools.card.measured.timing import seconds_of

_SIDE, _SMALL_SIDE = 8192, 512  # of the matrices
_NUMBERS, _SMALL_NUMBERS = 1 << 27, 1 << 22  # in the array
_WINDOW, _SMALL_WINDOW = 1024, 64  # latents
_SHORTER = (4, 16)  # times, windows whose cost besides their latents shows
_SEVERAL = 4  # windows in one program, against programs of one
# What a card might be faster with; "auto" is what the commands take today.
_WAYS = (("bfloat16", ("auto", "cudnn", "fused")), ("float32", ("auto",)), ("tf32", ("auto",)))
_LAST_BEGUN = 100.0  # seconds after which no further row begins: those that are done would be lost


def measure(asked: Asked) -> dict[str, Any]:
    """A row for each format, formulation, batch and window."""
    until = time.monotonic() + _LAST_BEGUN
    model = asked.model()
    peaks = {dtype: matrix_peak(dtype, _SMALL_SIDE if asked.small else _SIDE) for dtype in DTYPES}
    rows: list[dict[str, Any]] = []
    for dtype, formulations in _WAYS:
        for formulation in formulations:
            try:
                codec = Codec(model, dtype=dtype, formulation=formulation)
            except UserError as error:
                rows.append({"dtype": dtype, "formulation": formulation, "failed": str(error)})
                continue
            rows += _rows(model, codec, dtype, formulation, asked.small, peaks[dtype], until)
    numbers = _SMALL_NUMBERS if asked.small else _NUMBERS
    return {"matrix_peak": peaks, "bandwidth": bandwidth(numbers), "rows": rows}


def matrix_peak(dtype: str, side: int) -> float:
    """Operations per second of a product of two square matrices."""
    kind, precision = DTYPES[dtype]
    left, right = (
        jax.random.normal(jax.random.key(seed), (side, side)).astype(kind) / side**0.5 for seed in (0, 1)
    )
    with jax.default_matmul_precision(precision):
        product = jax.jit(jnp.matmul).lower(left, right).compile()
    return 2.0 * side**3 / seconds_of(product, left, right)


def bandwidth(numbers: int) -> float:
    """Bytes per second read and written by adding a number to an array of float32."""
    array = jnp.zeros(numbers, jnp.float32)
    return 8.0 * numbers / seconds_of(jax.jit(lambda x: x + 1), array)


def _rows(
    model: EarVAE, codec: Codec, dtype: str, formulation: str, small: bool, peak: float, until: float
) -> list[dict[str, Any]]:
    engine, longest = codec.engine, _SMALL_WINDOW if small else _WINDOW
    operations = operations_per_latent(model.config)
    devices = len(engine.compiled.devices)
    shapes = [(devices, longest)]
    if (dtype, formulation) == ("bfloat16", "auto"):
        shapes += [(devices, longest // times) for times in _SHORTER]
        shapes += [] if small else [(_SEVERAL * devices, longest)]  # four times as long on a CPU
    rows = []
    for batch, window in shapes:
        row: dict[str, Any] = {"dtype": dtype, "formulation": formulation, "batch": batch, "latents": window}
        if time.monotonic() > until:
            rows.append({**row, "failed": "no time was left"})
            continue
        try:
            for stage in ("encode", "decode"):
                seconds, moved = _time(codec, stage, batch, window)
                row |= {f"{stage}_seconds": seconds, f"{stage}_bytes": moved}
                row[f"{stage}_of_peak"] = operations[stage] * batch * window / seconds / peak
        except Exception as error:  # noqa: BLE001 - whatever a compiler raises, the other rows go on
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            rows.append({**row, "failed": reason[:300]})
            continue
        seconds = row["encode_seconds"] + row["decode_seconds"]
        row["round_trip_of_peak"] = operations["round trip"] * batch * window / seconds / peak
        row["realtime"] = batch * window * model.config.downsampling_ratio / codec.sample_rate / seconds
        rows.append(row)
    return rows


def _time(codec: Codec, stage: str, batch: int, window: int) -> tuple[float, float | None]:
    """Seconds of a call, and the bytes of main memory that its program reads and writes."""
    engine, config = codec.engine, codec.config
    encoding = stage == "encode"
    lower = engine.compiled.lowered_encoder if encoding else engine.compiled.lowered_decoder
    weights = engine.compiled.encoder_weights if encoding else engine.compiled.decoder_weights
    lowered = lower(batch, window)
    program = lowered.compile()
    steps, channels = (window * config.downsampling_ratio, config.io_channels)
    shape = (batch, steps, channels) if encoding else (batch, window, config.latent_dim)
    values = 0.1 * np.random.default_rng(0).standard_normal(shape, np.float32)
    _, *where = jax.tree.leaves(program.input_shardings[0])[-4:]
    start, stop = np.zeros(batch, np.int32), np.full(batch, 1 << 30, np.int32)
    inputs = [jax.device_put(each, place) for each, place in zip((values, start, stop), where, strict=True)]
    moved = None if jax.default_backend() == "cpu" else read(program).bytes
    return seconds_of(program, weights, *inputs), moved


if __name__ == "__main__":
    run(measure, __doc__)
