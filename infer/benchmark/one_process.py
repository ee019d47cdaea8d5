"""A contender in a process of its own, so that its peak memory is its own; `beside_diffusers` starts it.

`python -m earvae_jax.infer.benchmark.one_process CONTENDER MODEL BYTES` reads a call a line from standard
input and answers each with a line, both in JSON. MODEL is a checkpoint, or a folder of diffusers for its
contenders, whose processes do without JAX. BYTES is the memory that the process may take.
"""

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from earvae_jax.command import run_program
from earvae_jax.system import heap, machine

OURS, WHOLE, TILED = "earvae-jax", "diffusers, whole file", "diffusers, tiled"

Function = Callable[[np.ndarray], np.ndarray]  # [T, C] to [N, D], or back


class Stage(NamedTuple):
    """Encoding or decoding."""

    run: Function
    prepare: Callable[[np.ndarray], object] = lambda values: None  # compiles what `run` of an input needs


def main(words: Sequence[str] | None = None) -> None:
    """Answers calls until standard input ends."""
    name, model, limit = sys.argv[1:] if words is None else words
    heap.use_one_heap()  # as the commands do
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    stages, about = _codec(model) if name == OURS else _diffusers(model, tiled=name == TILED)
    _say(about)
    for line in sys.stdin:
        _say(answer(stages, **json.loads(line)))


def answer(stages: Mapping[str, Stage], stage: str, given: str, output: str | None = None) -> dict[str, Any]:
    """Runs a stage on the array in a file, and writes its output to another.

    Returns:
      The seconds it took, those of all processors, and the most memory that the process held; or why it
      could not, as "failed".
    """
    values = np.load(given)
    try:
        stages[stage].prepare(values)
        machine.release_freed_memory()
        known = machine.reset_peak_memory()
        started, worked = time.perf_counter(), time.process_time()
        result = stages[stage].run(values)
        seconds, processors = time.perf_counter() - started, time.process_time() - worked
        peak = machine.peak_memory() if known else None
    except (MemoryError, RuntimeError) as error:  # torch says in a RuntimeError that it got no memory
        return {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    if output is not None:
        np.save(output, result)
    return {"seconds": seconds, "processors": processors, "peak": peak}


def _say(values: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _codec(checkpoint: str) -> tuple[dict[str, Stage], dict[str, Any]]:
    import jax

    from earvae_jax.infer.codec import Codec

    codec: Any = Codec.load(checkpoint)  # of one array it gives no list
    ratio = codec.config.downsampling_ratio

    def stage(run: Function, tiling: Any, samples: int) -> Stage:
        compiled: set[int] = set()

        def prepare(values: np.ndarray) -> None:
            for size in {window.size for window in tiling.plan(len(values) // samples)} - compiled:
                compiled.add(size)
                run(values[: size * samples])

        return Stage(run, prepare)

    def encode(audio: np.ndarray) -> np.ndarray:
        return codec.encode(audio).mean

    return {
        "encode": stage(encode, codec.engine.encoder_tiling, ratio),
        "decode": stage(codec.decode, codec.engine.decoder_tiling, 1),
    }, {"version": jax.__version__}


def _diffusers(folder: str, *, tiled: bool) -> tuple[dict[str, Stage], dict[str, Any]]:
    import diffusers
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about the form of weight norm in it
        net: Any = diffusers.AutoencoderOobleck.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    if tiled:
        net.enable_tiling()

    @torch.inference_mode()
    def run(function: Callable, values: np.ndarray) -> np.ndarray:
        # A copy in its layout, as a loader gives it.
        return function(torch.tensor(values.T[None]))[0].numpy().T

    ratio = net.hop_length
    return {
        "encode": Stage(lambda audio: run(lambda x: net.encode(x).latent_dist.mean, audio)),
        "decode": Stage(lambda latents: run(lambda z: net.decode(z).sample, latents)),
    }, {
        "version": f"{diffusers.__version__} on torch {torch.__version__}",
        # Latents from the start of a tile to the start of the next, which may be no whole number.
        "steps": {
            "encode": (net.tile_sample_min_length - 2 * net.tile_sample_overlap) / ratio,
            "decode": net.tile_latent_min_length - 2 * net.tile_latent_overlap,
        },
    }


if __name__ == "__main__":
    run_program(main)
