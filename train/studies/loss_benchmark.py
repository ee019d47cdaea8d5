"""Times the reconstruction objective in JAX and torch: `python -m earvae_jax.train.studies.loss_benchmark`.

It times value and gradient. The torch side computes the same terms from the same shared transforms, with
torch's own operators.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from earvae_jax.command import run_program
from earvae_jax.errors import require
from earvae_jax.train.config import ObjectiveConfig
from earvae_jax.train.losses.objective import reconstruction_objective

SHAPE = (8, 65536, 2)
SAMPLE_RATE = 44_100


def objective_benchmark(*, repeats: int = 7, shape: tuple[int, int, int] = SHAPE) -> dict[str, float]:
    """Median seconds for value and gradient of the whole objective, measured in turns, and both values.

    Keys: `jax_seconds`, `torch_seconds`, `speedup`, `jax_compile_seconds`, `jax_value`, `torch_value`.

    Raises:
        UserError: torch is not installed.
    """
    torch = require("torch", extra="torch")
    import jax
    import numpy as np

    config = ObjectiveConfig()
    random = np.random.default_rng(0)
    target = random.standard_normal(shape).astype(np.float32) * 0.1
    prediction = target + random.standard_normal(shape).astype(np.float32) * 0.02

    @jax.jit
    def in_jax(prediction, target):
        return jax.value_and_grad(
            lambda x: reconstruction_objective(x, target, sample_rate=SAMPLE_RATE, config=config)[0]
        )(prediction)

    arrays = jax.device_put((prediction, target))
    tensors = [torch.from_numpy(x.swapaxes(1, 2).copy()) for x in (prediction, target)]
    objective = torch_objective(config, SAMPLE_RATE)

    def in_torch():
        leaf = tensors[0].requires_grad_()
        value = objective(leaf, tensors[1])
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient

    started = time.perf_counter()
    jax_value = float(jax.block_until_ready(in_jax(*arrays))[0])
    compile_seconds = time.perf_counter() - started
    torch_value = in_torch()[0]
    jax_times, torch_times = [], []
    for _ in range(repeats):
        jax_times.append(_seconds(lambda: jax.block_until_ready(in_jax(*arrays))))
        torch_times.append(_seconds(in_torch))
    jax_seconds, torch_seconds = statistics.median(jax_times), statistics.median(torch_times)
    return {
        "jax_seconds": jax_seconds,
        "torch_seconds": torch_seconds,
        "speedup": torch_seconds / jax_seconds,
        "jax_compile_seconds": compile_seconds,
        "jax_value": jax_value,
        "torch_value": torch_value,
    }


def torch_objective(config: ObjectiveConfig, sample_rate: int) -> Callable:
    """`reconstruction_objective` with its default forms in torch, for tensors `[B, C, T]`."""
    torch = require("torch", extra="torch")
    from earvae_jax.signal.weighting import k_weighting_fir
    from earvae_jax.train.losses.spectrum_terms import window_overlap

    taps = torch.from_numpy(k_weighting_fir(sample_rate))

    def k_weight(audio):
        length = audio.shape[-1] + len(taps) - 1
        response = torch.fft.rfft(taps.to(audio.device), length)
        filtered = torch.fft.irfft(torch.fft.rfft(audio, length) * response, length)
        return filtered[..., len(taps) // 2 :][..., : audio.shape[-1]]

    def spectrum(audio, n_fft):
        window = torch.hann_window(n_fft, device=audio.device)
        flat = audio.reshape(-1, audio.shape[-1])
        hop = n_fft // config.hop_fraction
        bins = torch.stft(flat, n_fft, hop, window=window, center=False, return_complex=True)
        return bins.transpose(1, 2).reshape(*audio.shape[:2], -1, n_fft // 2 + 1)

    def magnitudes(bins):
        left, right = bins[:, :1], bins[:, 1:]
        bins = torch.cat([(left + right) / 2, (left - right) / 2, bins], dim=1)
        return torch.sqrt(torch.clamp(bins.real**2 + bins.imag**2, min=1e-8))

    def magnitude_terms(prediction, target):
        predicted, wanted = magnitudes(prediction), magnitudes(target)
        norm = wanted.norm(dim=(-2, -1))
        norm = torch.maximum(norm, 0.01 * norm.amax(dim=1, keepdim=True))
        convergence = ((predicted - wanted).norm(dim=(-2, -1)) / norm).mean()
        log_distance = (predicted.log() - wanted.log()).abs().mean()
        return config.spectral_convergence * convergence + config.log_magnitude * log_distance

    def weighted(smallest, values, n_fft, level):
        weights = smallest * smallest / (smallest + 1e-5 * n_fft / 4)
        return ((weights * values).sum(dim=(1, 2, 3)) / level).sum()

    def phase_terms(prediction, target, level):
        *items, frames, bins = prediction.shape
        n_fft = 2 * (bins - 1)
        hop = n_fft // config.hop_fraction
        samples = (frames - 1) * hop + n_fft
        scale = 1 / (2 * window_overlap(n_fft, hop) * samples * bins * items[0] * items[1])
        product = prediction * target.conj()
        smaller = torch.minimum(prediction.abs(), target.abs()).detach()
        difference = torch.angle(product)
        total = config.correlation * weighted(smaller, 1 - torch.cos(difference), n_fft, level)
        for axis, weight in ((-2, config.instantaneous_frequency), (-1, config.group_delay)):
            change = torch.diff(difference, dim=axis)
            change = change - 2 * torch.pi * torch.round(change / (2 * torch.pi))
            count = smaller.shape[axis]
            weights = torch.minimum(smaller.narrow(axis, 1, count - 1), smaller.narrow(axis, 0, count - 1))
            total = total + weight * weighted(weights, change.abs(), n_fft, level)
        return total * scale

    def objective(prediction, target):
        prediction, target = k_weight(prediction), k_weight(target)
        level = target.square().mean(dim=(1, 2)).sqrt().clamp(min=1e-3)
        total = torch.zeros(())
        for n_fft in sorted({*config.n_ffts, *config.phase_n_ffts}, reverse=True):
            predicted, wanted = spectrum(prediction, n_fft), spectrum(target, n_fft)
            if n_fft in config.n_ffts:
                total = total + magnitude_terms(predicted, wanted) / len(config.n_ffts)
            if n_fft in config.phase_n_ffts:
                total = total + phase_terms(predicted, wanted, level) / len(config.phase_n_ffts)
        return total

    return objective


def _seconds(call: Callable) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(words: Sequence[str] | None = None) -> None:
    """Prints the figures as JSON."""
    program = "python -m earvae_jax.train.studies.loss_benchmark"
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(words)
    sys.stdout.write(json.dumps(objective_benchmark(), indent=2) + "\n")


if __name__ == "__main__":
    run_program(main)
