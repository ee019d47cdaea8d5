"""The discriminator and one training step in torch: the yardstick of tests and of the step benchmark."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# The one import from another application: the port of the model is the yardstick.
from earvae_jax.convert.torch_port import model as torch_model
from earvae_jax.train.config import DiscriminatorConfig, ObjectiveConfig, TrainConfig
from earvae_jax.train.studies.loss_benchmark import torch_objective

TERMS = ("spectral_convergence", "log_magnitude", "correlation", "instantaneous_frequency", "group_delay")


class TorchSTFTDiscriminator(nn.Module):
    """The discriminator of one resolution with torch's own weight norm, convolutions and STFT."""

    def __init__(self, n_fft: int, channels: int, filters: int, dilations: tuple[int, ...]):
        super().__init__()
        self.n_fft = n_fft
        norm = nn.utils.parametrizations.weight_norm
        layers = [nn.Conv2d(2 * channels, filters, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(filters, filters, (3, 9), dilation=(d, 1), padding=(d, 4)) for d in dilations]
        layers.append(nn.Conv2d(filters, filters, (3, 3), padding=1))
        self.convs = nn.ModuleList(norm(layer) for layer in layers)
        self.conv_post = norm(nn.Conv2d(filters, 1, (3, 3), padding=1))

    def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch, channels, samples = audio.shape
        window = torch.hann_window(self.n_fft, device=audio.device)
        spectrum = torch.stft(
            audio.reshape(-1, samples),
            self.n_fft,
            self.n_fft // 4,
            window=window,
            center=False,
            return_complex=True,
        )
        spectrum = spectrum.reshape(batch, channels, *spectrum.shape[1:]).transpose(2, 3)
        x = torch.cat([spectrum.real, spectrum.imag], dim=1) / window.pow(2).sum().sqrt()
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            features.append(x)
        return self.conv_post(x), features


def discriminator(config: DiscriminatorConfig, channels: int, arrays: dict[str, np.ndarray]) -> nn.ModuleList:
    """The discriminators in torch, with the arrays of a JAX `Discriminator` by name."""
    modules = nn.ModuleList(
        TorchSTFTDiscriminator(n_fft, channels, config.filters, config.dilations) for n_fft in config.n_ffts
    )
    with torch.no_grad():
        for name, parameter in named_parameters(modules).items():
            parameter.copy_(torch.from_numpy(to_torch(name, arrays[name])))
    return modules


def named_parameters(modules: nn.ModuleList) -> dict[str, nn.Parameter]:
    """Parameters of the discriminators by the names that the JAX module has."""
    renamed = {"parametrizations.weight.original0": "gain", "parametrizations.weight.original1": "direction"}
    found = {}
    for name, parameter in modules.named_parameters():
        for old, new in renamed.items():
            name = name.replace(old, new)
        found[f"discriminators.{name}"] = parameter
    return found


def to_torch(name: str, array: np.ndarray) -> np.ndarray:
    """The layout of a discriminator's array in torch."""
    array = np.array(array)
    if name.endswith("direction"):
        return array.transpose(3, 2, 0, 1).copy()
    return array.reshape(-1, 1, 1, 1) if name.endswith("gain") else array


class TorchStep:
    """Generator and discriminator losses of one batch, and the updates."""

    def __init__(self, config: TrainConfig, generator: torch_model.TorchEarVAE, judges: nn.ModuleList):
        self.config, self.generator, self.judges = config, generator, judges
        self._objective = torch_objective(config.objective, config.sample_rate)

    def losses(self, audio: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every term and both losses, from audio `[B, C, T]` and noise `[B, D, N]`."""
        config, adversarial = self.config, self.config.adversarial
        assert adversarial is not None
        prediction, kl = self.generator(audio, noise)
        rate = config.sample_rate
        terms = {name: _term(config.objective, name, rate)(prediction, audio) for name in TERMS}
        terms |= _waveform_terms(prediction, audio)
        loss = sum(getattr(config.objective, name) * value for name, value in terms.items())
        terms["kl"] = kl
        real = [judge(audio) for judge in self.judges]
        fake = [judge(prediction) for judge in self.judges]
        terms["adversarial"] = _mean([(1 - judged).square().mean() for judged, _ in fake])
        terms["feature_matching"] = _mean(
            [
                _mean([(r.detach() - f).abs().mean() for r, f in zip(rs, fs, strict=True)])
                for (_, rs), (_, fs) in zip(real, fake, strict=True)
            ]
        )
        loss = loss + config.kl_weight * kl + adversarial.weight * terms["adversarial"]
        terms["loss"] = loss + adversarial.feature_matching_weight * terms["feature_matching"]
        detached = [judge(prediction.detach())[0] for judge in self.judges]
        terms["discriminator"] = _mean(
            [(1 - r).square().mean() + f.square().mean() for (r, _), f in zip(real, detached, strict=True)]
        )
        return terms

    def backward(self, audio: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """Leaves the gradients in the parameters' `grad`; returns the terms."""
        terms = self.losses(audio, noise)
        _gradients(terms["loss"], self.generator, retain_graph=True)
        _gradients(terms["discriminator"], self.judges)
        return terms

    def update(
        self,
        audio: torch.Tensor,
        noise: torch.Tensor,
        generator_optimizer: torch.optim.Optimizer,
        judge_optimizer: torch.optim.Optimizer | None,
    ) -> None:
        """A whole step, written for speed; without `judge_optimizer` it has no adversarial terms.

        The objective's terms share their transforms, and both losses share the discriminator's outputs:
        recording and reconstruction are judged once each. Gradients that nobody reads are not computed. With
        `compute_dtype` "bfloat16" torch's autocast computes convolutions in it.
        """
        config = self.config
        rounded = torch.autocast(
            audio.device.type, torch.bfloat16, enabled=config.compute_dtype == "bfloat16"
        )
        with rounded:
            prediction, kl = self.generator(audio, noise)
        prediction = prediction.float()
        loss = self._objective(prediction, audio)
        for name, value in _waveform_terms(prediction, audio).items():
            loss = loss + getattr(config.objective, name) * value
        loss = loss + config.kl_weight * kl
        adversarial = config.adversarial if judge_optimizer is not None else None
        if adversarial is not None:
            with rounded:
                real = [judge(audio) for judge in self.judges]
                fake = [judge(prediction) for judge in self.judges]
            matching = [
                _mean([(r.detach() - f).abs().mean() for r, f in zip(rs, fs, strict=True)])
                for (_, rs), (_, fs) in zip(real, fake, strict=True)
            ]
            loss = loss + adversarial.weight * _mean([(1 - j).square().mean() for j, _ in fake])
            loss = loss + adversarial.feature_matching_weight * _mean(matching)
        _gradients(loss, self.generator, retain_graph=adversarial is not None)
        if adversarial is not None and judge_optimizer is not None:
            losses = [
                (1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)
            ]
            _gradients(_mean(losses), self.judges)
            _descend(self.judges, judge_optimizer, adversarial.optimizer.clip_norm)
        _descend(self.generator, generator_optimizer, config.optimizer.clip_norm)


def _gradients(loss: torch.Tensor, module: nn.Module, *, retain_graph: bool = False) -> None:
    """Leaves the gradients of `module` alone in its parameters' `grad`."""
    parameters = list(module.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient


def _descend(module: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> None:
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
    optimizer.step()


def _term(objective: ObjectiveConfig, name: str, sample_rate: int) -> Callable[..., torch.Tensor]:
    """One term of torch's objective with weight 1: all others have weight 0."""
    weights: dict[str, Any] = {term: float(term == name) for term in TERMS}
    return torch_objective(dataclasses.replace(objective, **weights), sample_rate)


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values).mean()


def _waveform_terms(prediction: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
    error = (prediction - audio).square().mean(dim=(1, 2)) / audio.square().mean(dim=(1, 2)).clamp(min=1e-6)
    return {"waveform": error.mean(), "log_waveform": (error + 1e-3).log().mean()}
