"""Times training steps in JAX and torch: `python -m earvae_jax.train.studies.step_benchmark`.

It measures two sizes of model, each without and with the adversarial terms, in float32 on noise, or the
recipe of `--config`. Both sides take whole steps, AdamW included, in turns in one process. Torch runs
eagerly, on the GPU where JAX does; without torch JAX is measured alone. Memory is measured in a process for
each side, as memory that one side freed would hide what the other takes. JAX has two processes: the first
compiles, which leaves holes in the heap; the second finds the programs in the compilation cache, as a
continued run does.
"""

import argparse
import copy
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from earvae_jax.command import run_program
from earvae_jax.errors import UserError, require
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.lengths import latents_of
from earvae_jax.system import machine
from earvae_jax.system.compilation_cache import enable_compilation_cache
from earvae_jax.system.figures import hand_out
from earvae_jax.system.heap import keep_freed_memory, use_one_heap
from earvae_jax.train.config import TrainConfig, bundled_or_file
from earvae_jax.train.step.step import Trainer

_KINDS = ("generator", "adversarial")
_SETTLE = 0.25  # seconds; torch's threads spin for so long after their work


def train_configs() -> dict[str, TrainConfig]:
    """The demo's recipe, and the 44.1 kHz model at a quarter of its width; two crops of 0.74 s each."""
    folder = resources.files("earvae_jax.configs")
    with resources.as_file(folder / "train_demo.json") as path:
        demo: dict[str, Any] = TrainConfig.from_json(path).to_dict()
    with resources.as_file(folder / "ear_vae_44k.json") as path:
        published = ModelConfig.from_json(path).to_dict()
    quarter = copy.deepcopy(published)
    for half in ("encoder", "decoder"):
        quarter[half]["config"]["channels"] //= 4
    adversarial = {
        "start_step": 0,
        "discriminator": {"n_ffts": [2048, 1024, 512, 256, 128], "filters": 16},
        "optimizer": {"learning_rate": 3e-4},
    }
    demo = demo | {
        "adversarial": adversarial,
        "data": demo["data"] | {"crop_samples": 32_768, "batch_size": 2},
    }
    sizes = {"demo": demo, "quarter width": demo | {"model": quarter}}
    return {name: TrainConfig.from_dict(values) for name, values in sizes.items()}


def step_benchmark(config: TrainConfig, *, adversarial: bool, repeats: int = 5) -> dict[str, float]:
    """Median times of one step of both sides, measured in turns; without torch those of JAX alone.

    Keys: `jax_seconds`, `torch_seconds`, `speedup`, `jax_realtime` (seconds of audio in one second),
    `torch_realtime`, `jax_crops` (crops in one second), `torch_crops`, `jax_compile_seconds`.
    """
    sides = [side for side in _STEPS if side != "torch" or importlib.util.find_spec("torch")]
    calls = {side: _STEPS[side](config, adversarial) for side in sides}
    first = {side: _seconds(call) for side, call in calls.items()}
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(repeats):
        for side, call in calls.items():
            time.sleep(_SETTLE)
            times[side].append(_seconds(call))
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    audio = config.data.batch_size * config.data.crop_samples / config.sample_rate
    result = {f"{side}_seconds": median for side, median in medians.items()}
    result |= {f"{side}_realtime": audio / median for side, median in medians.items()}
    result |= {f"{side}_crops": config.data.batch_size / median for side, median in medians.items()}
    if "torch" in medians:
        result["speedup"] = medians["torch"] / medians["jax"]
    result["jax_compile_seconds"] = first["jax"] - medians["jax"]
    return result


def step_memory(config: TrainConfig, side: str, *, adversarial: bool) -> int | None:
    """Bytes that weights, optimizer, programs and a step of one side take in this process.

    Memory that only compiling takes is not counted. None if the system does not tell.
    """
    machine.release_freed_memory()
    before = machine.memory()
    call = _STEPS[side](config, adversarial)
    call()  # compiles
    machine.release_freed_memory()
    held = machine.memory() - before
    used = machine.memory_used_at_most(call)
    return None if used is None else held + used


def jax_step(config: TrainConfig, adversarial: bool) -> Callable[[], None]:
    """A step of the trainer on noise, compiled at the first call."""
    trainer = Trainer(config)
    state = trainer.initial_state()
    step = jax.jit(functools.partial(trainer.step, adversarial=adversarial), donate_argnums=0)
    audio = jax.device_put(_noise(config))

    def call() -> None:
        nonlocal state
        state, _ = step(state, audio)
        jax.block_until_ready(state)

    return call


def _torch_step(config: TrainConfig, adversarial: bool) -> Callable[[], None]:
    torch = require("torch", extra="torch")
    from earvae_jax.train.studies import torch_step

    # Any numbers will do. Drawing them with JAX would leave its programs in the memory measured for torch.
    random = np.random.default_rng(0)
    trainer = Trainer(config)
    shapes = jax.eval_shape(trainer.unstacked, trainer.state_shapes())
    judge_arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): 0.1 * random.standard_normal(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(shapes.discriminator)
    }
    model, adversary = config.model_config, config.adversarial
    assert adversary is not None  # both sizes have one
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX rounds by default
    generator = torch_step.torch_model.build(model).to(device)
    judges = torch_step.discriminator(adversary.discriminator, model.io_channels, judge_arrays).to(device)
    step = torch_step.TorchStep(config, generator, judges)
    optimizers = [
        torch.optim.AdamW(module.parameters(), options.learning_rate, options.betas)
        for module, options in ((generator, config.optimizer), (judges, adversary.optimizer))
    ]
    audio = torch.from_numpy(_noise(config).swapaxes(1, 2).copy()).to(device)
    latents = latents_of(config.data.crop_samples, model.encoder.strides)
    noise = torch.randn(config.data.batch_size, model.latent_dim, latents, device=device)

    def call() -> None:
        step.update(audio, noise, optimizers[0], optimizers[1] if adversarial else None)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


_STEPS = {"jax": jax_step, "torch": _torch_step}


def _memory_of_other_processes(name: str, kind: str) -> dict[str, float]:
    """Megabytes of JAX at a first start, at a later one, and of torch; NaN if the system does not tell."""
    with tempfile.TemporaryDirectory() as cache:

        def megabytes(side: str) -> float:
            words = [sys.executable, "-m", "earvae_jax.train.studies.step_benchmark", name, side, kind, cache]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            return float(done.stdout) / 1e6

        return {
            "jax_first_megabytes": megabytes("jax"),
            "jax_megabytes": megabytes("jax"),
            "torch_megabytes": megabytes("torch"),
        }


def _noise(config: TrainConfig) -> np.ndarray:
    shape = (config.data.batch_size, config.data.crop_samples, config.model_config.io_channels)
    return 0.1 * np.random.default_rng(0).standard_normal(shape, np.float32)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(words: Sequence[str] | None = None) -> None:
    """Prints a Markdown table, and the figures as JSON after it."""
    program = "python -m earvae_jax.train.studies.step_benchmark"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--config", metavar="JSON", help="a training config instead, a file or a bundled one")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="as of earvae train"
    )
    parser.add_argument("--step", nargs="+", default=_KINDS, choices=_KINDS, help="default: both")
    parser.add_argument("--repeats", type=int, default=5, help="turns; default: 5")
    parser.add_argument("--json", metavar="OUT", help="also write the figures to this file")
    asked = parser.parse_args(words)
    if asked.overrides and not asked.config:
        raise UserError("--set goes with --config")
    # JAX would take most of a GPU at its start and leave too little to torch.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    own = asked.config is not None
    configs = {Path(asked.config).stem: _recipe(asked.config, asked.overrides)} if own else train_configs()
    about = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    heads = ["model", "step", "JAX s", "torch s", "torch / JAX", "JAX crops/s", "torch crops/s"]
    heads += [] if own else ["JAX MB first", "JAX MB", "torch MB"]
    lines = [about, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    results = {}
    use_one_heap()
    keep_freed_memory()  # as `earvae train` does; it serves both sides
    for name, config in configs.items():
        for kind in asked.step:
            r = step_benchmark(config, adversarial=kind == "adversarial", repeats=asked.repeats)
            keys = ("jax_seconds", "torch_seconds", "speedup", "jax_crops", "torch_crops")
            digits = (3, 3, 2, 2, 2)
            cells = [f"{r[key]:.{n}f}" if key in r else "–" for key, n in zip(keys, digits, strict=True)]
            if not own:
                memory = _memory_of_other_processes(name, kind)
                r |= memory
                cells += [f"{megabytes:.0f}" for megabytes in memory.values()]
            results[f"{name}, {kind}"] = r
            lines.append("| " + " | ".join([name, kind, *cells]) + " |")
    hand_out("\n".join(lines) + "\n\n" + json.dumps(results, indent=2) + "\n", results, as_json=asked.json)


def _recipe(name: str, overrides: Sequence[str]) -> TrainConfig:
    config = TrainConfig.from_json(bundled_or_file(name), overrides)
    if config.adversarial is None:
        raise UserError(f"{name}: has no discriminator, and torch's step is one with it")
    return config


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[2] in _STEPS:
        name, side, kind, cache = sys.argv[1:]
        enable_compilation_cache(cache)
        used = step_memory(train_configs()[name], side, adversarial=kind == "adversarial")
        sys.stdout.write(str(float("nan") if used is None else used))
    else:
        run_program(main)
