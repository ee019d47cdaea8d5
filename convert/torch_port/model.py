"""εar-VAE in PyTorch, written from the paper's published facts and with the published key names.

It is the reference for parity, gradients and benchmarks when the published code is not at hand. The layout
is PyTorch's `[B, C, T]`. A `state_dict` written here loads into the published code with `strict=True`, and
the other way round.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earvae_jax.convert.torch_port.layers import (
    Conv1d,
    ConvTranspose1d,
    NearestUpsample,
    WeightNormed,
    activation,
)
from earvae_jax.convert.torch_port.transformer import Transformer
from earvae_jax.model.config import DecoderConfig, EncoderConfig, ModelConfig
from earvae_jax.model.lengths import resampling_padding


class ResidualUnit(nn.Module):
    """Two convolutions and two activations, of which tied ones are one module, added to the input."""

    def __init__(self, channels: int, dilation: int, config: EncoderConfig | DecoderConfig):
        super().__init__()
        bias = config.bias
        first = activation(channels, config.use_snake)
        self.layers = nn.Sequential(
            first,
            Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation, bias=bias),
            first if config.tied_activations else activation(channels, config.use_snake),
            Conv1d(channels, channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class EncoderBlock(nn.Module):
    """Three residual units, then a strided convolution to the next width."""

    def __init__(self, c_in: int, c_out: int, stride: int, config: EncoderConfig):
        super().__init__()
        self.layers = nn.Sequential(
            *(ResidualUnit(c_in, dilation, config) for dilation in (1, 3, 9)),
            activation(c_in, config.use_snake),
            Conv1d(
                c_in, c_out, 2 * stride, stride=stride, padding=resampling_padding(stride), bias=config.bias
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DecoderBlock(nn.Module):
    """Up-sampling to the next width, then three residual units."""

    def __init__(self, c_in: int, c_out: int, stride: int, config: DecoderConfig):
        super().__init__()
        upsample: nn.Module
        if config.use_nearest_upsample:
            upsample = NearestUpsample(c_in, c_out, stride, config.bias)
        else:
            padding = resampling_padding(stride)
            upsample = ConvTranspose1d(
                c_in, c_out, 2 * stride, stride=stride, padding=padding, bias=config.bias
            )
        self.layers = nn.Sequential(
            activation(c_in, config.use_snake, config.antialias_activation),
            upsample,
            *(ResidualUnit(c_out, dilation, config) for dilation in (1, 3, 9)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Encoder(nn.Module):
    """Audio `[B, C, T]` to mean and scale stacked `[B, 2D, N]`."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        widths = config.widths
        self.layers = nn.Sequential(
            Conv1d(config.in_channels, widths[0], 7, padding=3, bias=config.bias),
            *(
                EncoderBlock(*level, config)
                for level in zip(widths, widths[1:], config.strides, strict=False)
            ),
            activation(widths[-1], config.use_snake, config.antialias_activation),
            Conv1d(widths[-1], config.latent_dim, 3, padding=1, bias=config.bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """Latents `[B, D, N]` to audio `[B, C, T]`."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        widths = config.widths
        levels = list(zip(widths[1:], widths, config.strides, strict=False))
        self.layers = nn.Sequential(
            Conv1d(config.latent_dim, widths[-1], 7, padding=3, bias=config.bias),
            *(DecoderBlock(*level, config) for level in reversed(levels)),
            activation(widths[0], config.use_snake, config.antialias_activation),
            Conv1d(widths[0], config.out_channels, 7, padding=3, bias=False),
            nn.Tanh() if config.final_tanh else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TorchEarVAE(nn.Module):
    """The whole model; attributes are ordered so that its `state_dict` has the published order."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.std_offset = config.std_offset
        self.transformers = None
        if config.transformer is not None:
            self.transformers = Transformer(config.latent_dim, config.transformer)
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder)

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and scale, both `[B, D, N]`; see `std` for the standard deviation."""
        mean, scale = self.encoder(audio).chunk(2, dim=1)
        return mean, scale

    def std(self, scale: Tensor) -> Tensor:
        """Returns the standard deviation, `softplus(scale) + std_offset`."""
        return F.softplus(scale) + self.std_offset

    def decode(self, latents: Tensor) -> Tensor:
        """Returns audio `[B, C, T]` for latents `[B, D, N]`."""
        if self.transformers is not None:
            latents = self.transformers(latents.transpose(1, 2)).transpose(1, 2)
        return self.decoder(latents)

    def forward(self, audio: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the reconstruction and the KL divergence, with `noise` `[B, D, N]` or a fresh draw."""
        mean, scale = self.encode(audio)
        std = self.std(scale)
        variance = std**2 if self.std_offset else std**2 + 1e-6
        kl = (mean**2 + variance - variance.log() - 1).sum(dim=1).mean()
        noise = torch.randn_like(mean) if noise is None else noise
        return self.decode(mean + std * noise), kl


def build(config: ModelConfig | Mapping, state: Mapping[str, Tensor] | None = None) -> TorchEarVAE:
    """Builds the model in evaluation mode, freshly initialised or with a published `state_dict` (strict)."""
    config = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
    model = TorchEarVAE(config)
    if state is not None:
        model.load_state_dict(state, strict=True)
    return model.eval()


def fold_weight_norm(model: nn.Module) -> nn.Module:
    """Replaces every gain and direction by their product, in place; for measuring speed, not for saving."""
    for module in model.modules():
        if isinstance(module, WeightNormed):
            module.fold()
    return model
