"""One adversarial training step on the card against the same step on the CPU, in float32.

The step starts from random weights and one crop of noise and tones. Compared are its terms, and the first
moments of Adam, which after one step are the gradients. Products are not rounded on either side.
"""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from earvae_jax.train.config import TrainConfig, bundled_or_file
from earvae_jax.train.step.step import Trainer
from tools.card.measured.part import Asked, run
from tools.card.sizes import RECIPE, recipe_overrides

_CROP, _SMALL_CROP = 16_384, 4096
_TERMS = 1e-3  # relative: float32 through a hundred layers and five spectra
_GRADIENTS = 1e-2  # ‖Δ‖/‖gradient‖ over all parameters: where terms of a gradient cancel, rounding is left


def measure(asked: Asked) -> dict[str, Any]:
    """Runs the step on both."""
    crop = _SMALL_CROP if asked.small else _CROP
    changes = recipe_overrides(asked.work, small=asked.small, crop=crop, crops=1, dtype="float32")
    config = TrainConfig.from_json(bundled_or_file(RECIPE), changes)
    trainer = Trainer(config)
    state = jax.device_get(trainer.initial_state())
    step = functools.partial(trainer.step, adversarial=True)
    devices = {"card": jax.local_devices()[0], "cpu": jax.local_devices(backend="cpu")[0]}
    audio = _music(config)

    def compiled(device: jax.Device) -> tuple[Any, Any, float]:
        inputs = jax.device_put((state, audio), device)
        started = time.perf_counter()
        with jax.default_matmul_precision("highest"):  # of this thread
            program = jax.jit(step).lower(*inputs).compile()
        return program, inputs, time.perf_counter() - started

    with ThreadPoolExecutor() as threads:  # they compile side by side
        programs = dict(zip(devices, threads.map(compiled, devices.values()), strict=True))
    answers = {name: jax.device_get(program(*inputs)) for name, (program, inputs, _) in programs.items()}
    (ours, our_terms), (theirs, their_terms) = answers["card"], answers["cpu"]
    rows = []
    for name, expected in sorted(their_terms.items()):
        difference = float(abs(our_terms[name] - expected) / max(abs(expected), 1e-12))
        rows.append({"part": name, "relative": difference, "bound": _TERMS, "passed": difference <= _TERMS})
    for part in ("optimizer", "discriminator_optimizer"):
        difference = _apart(getattr(ours, part), getattr(theirs, part))
        name = "gradients" if part == "optimizer" else "gradients of the discriminator"
        passed = difference <= _GRADIENTS
        rows.append({"part": name, "relative": difference, "bound": _GRADIENTS, "passed": passed})
    return {
        "crop_samples": config.data.crop_samples,
        "compile_seconds": {name: seconds for name, (_, _, seconds) in programs.items()},
        "rows": rows,
        "passed": all(bool(row["passed"]) for row in rows),
    }


def _apart(ours: Any, theirs: Any) -> float:
    """‖Δ‖/‖theirs‖ of the first moments."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
        if ".mu" in jax.tree_util.keystr(path)
    ]
    assert pairs, "the optimizer keeps no first moments"
    off = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return (off / sum(float(np.sum(b**2)) for _, b in pairs)) ** 0.5


def _music(config: TrainConfig) -> np.ndarray:
    """Tones in noise [1, T, 2]: every bin has energy, as the comparison of phases needs."""
    random = np.random.default_rng(0)
    times = np.arange(config.data.crop_samples)[:, None] / config.sample_rate
    tones = np.sum([np.sin(2 * np.pi * random.uniform(50, 5000, 2) * times) for _ in range(8)], axis=0)
    return (0.05 * tones + 0.02 * random.standard_normal(tones.shape)).astype(np.float32)[None]


if __name__ == "__main__":
    run(measure, __doc__)
