"""The layers of εar-VAE in PyTorch: weight-normed convolutions, SnakeBeta and the anti-aliased activation."""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNormed(nn.Module):
    """A convolution weight `g · v / ‖v‖`, with the norm over all axes but the first.

    Keys are those of `torch.nn.utils.weight_norm`, in its order: `bias`, `weight_g`, `weight_v`.
    """

    def __init__(self, shape: tuple[int, int, int], bias_width: int | None):
        super().__init__()
        fan_in = shape[1] * shape[2]
        # PyTorch's own default for convolutions: uniform within 1/√fan_in, for weight and bias alike.
        direction = torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5)
        if bias_width is None:
            self.register_parameter("bias", None)
        else:
            self.bias = nn.Parameter(torch.empty(bias_width).uniform_(-(fan_in**-0.5), fan_in**-0.5))
        self.weight_g: nn.Parameter | None = nn.Parameter(direction.flatten(1).norm(dim=1).view(-1, 1, 1))
        self.weight_v = nn.Parameter(direction)

    def weight(self) -> Tensor:
        """Returns the effective kernel, in the shape of `weight_v`."""
        if self.weight_g is None:
            return self.weight_v
        return torch._weight_norm(self.weight_v, self.weight_g, 0)  # what `torch.nn.utils.weight_norm` calls

    @torch.no_grad()
    def fold(self) -> None:
        """Replaces the pair by its product, as inference engines do; the published keys are then gone."""
        self.weight_v = nn.Parameter(self.weight())
        self.weight_g = None


class Conv1d(WeightNormed):
    """A weight-normed `nn.Conv1d`."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ):
        super().__init__((c_out, c_in, kernel), c_out if bias else None)
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation}

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight(), self.bias, **self.geometry)


class ConvTranspose1d(WeightNormed):
    """A weight-normed `nn.ConvTranspose1d`: one gain per **input** channel."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, padding: int, bias: bool = True):
        super().__init__((c_in, c_out, kernel), c_out if bias else None)
        self.geometry = {"stride": stride, "padding": padding}

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose1d(x, self.weight(), self.bias, **self.geometry)


class NearestUpsample(nn.Module):
    """Repeats every sample `stride` times, then convolves with width `2 · stride` at the same length."""

    def __init__(self, c_in: int, c_out: int, stride: int, bias: bool):
        super().__init__()
        self.stride = stride
        self.conv = Conv1d(c_in, c_out, 2 * stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat_interleave(self.stride, dim=-1)
        return self.conv(F.pad(x, (self.stride - 1, self.stride)))


class SnakeBeta(nn.Module):
    """`x + sin²(x·eᵅ) / (eᵝ + 1e-9)` with α and β per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + (x * alpha).sin() ** 2 / (beta + 1e-9)


def lowpass() -> Tensor:
    """Returns the 12-tap half-band Kaiser-windowed sinc `[1, 1, 12]` of the anti-aliased activation."""
    taps, half_width = 12, 0.3
    attenuation = 2.285 * (taps // 2 - 1) * pi * 4 * half_width + 7.95  # dB
    beta = 0.1102 * (attenuation - 8.7)  # Kaiser's formula above 50 dB
    window = torch.kaiser_window(taps, beta=beta, periodic=False)
    kernel = window * torch.sinc(0.5 * (torch.arange(taps) - (taps - 1) / 2))
    return (kernel / kernel.sum()).view(1, 1, taps)


class Upsample2(nn.Module):
    """Upsamples ×2 through the low-pass, with replicated edges."""

    filter: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", lowpass())

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.filter.expand(x.shape[1], -1, -1)
        x = F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), kernel, stride=2, groups=x.shape[1])
        return 2 * x[..., 15:-15]


class Lowpass(nn.Module):
    """Downsamples ×2 through the low-pass, with replicated edges."""

    filter: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", lowpass())

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.filter.expand(x.shape[1], -1, -1)
        return F.conv1d(F.pad(x, (5, 6), mode="replicate"), kernel, stride=2, groups=x.shape[1])


class Downsample2(nn.Module):
    """Holds the low-pass under its published name."""

    def __init__(self):
        super().__init__()
        self.lowpass = Lowpass()

    def forward(self, x: Tensor) -> Tensor:
        return self.lowpass(x)


class AntialiasedActivation(nn.Module):
    """An activation computed at twice the rate, as `alias_free_torch.Activation1d` does."""

    def __init__(self, act: nn.Module):
        super().__init__()
        self.act = act
        self.upsample = Upsample2()
        self.downsample = Downsample2()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


def activation(channels: int, use_snake: bool, antialias: bool = False) -> nn.Module:
    """Returns SnakeBeta or ELU, anti-aliased if asked for."""
    act = SnakeBeta(channels) if use_snake else nn.ELU()
    return AntialiasedActivation(act) if antialias else act
