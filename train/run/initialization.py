"""An alternative to torch's initial weights, which training would first have to unlearn."""

import math

import numpy as np
from flax import nnx
from jaxtyping import Float
from scipy import fft

from earvae_jax.errors import UserError
from earvae_jax.model.initial_values import constant, norms
from earvae_jax.model.layers import Conv, ConvTranspose, SnakeBeta
from earvae_jax.model.oobleck import DecoderBlock, EncoderBlock, ResidualUnit
from earvae_jax.model.vae import EarVAE

_RESIDUAL_GAIN = 0.1  # of the convolutions that end the residual units, thirty in a row
_SNAKE_BETA = 2.0  # sin² is added with e^−2: close to linear for music's amplitudes
_OTHERS = 0.3  # amplitude of the channels that stay random, relative to the signal
_NEXT_TO_NOTHING = 0.01  # a gain of zero would leave its direction without a gradient
_STD = 0.05  # of the latents: the decoder hears more signal than noise from the first step on


def start_as_transform(model: EarVAE) -> None:
    """Sets the weights so that the model begins as an orthogonal block transform and its inverse.

    Torch's initialisation damps a signal until little more than the biases is left, and a random encoder
    throws away what the decoder needs. Here each strided convolution begins as the cosine transform (DCT-II)
    of non-overlapping blocks of `stride` samples of each signal channel. The cascade keeps as many of the
    lowest bands as there are channels, and the decoder's transposed convolutions hold the same numbers.
    Residual units begin small, snakes nearly linear, and channels that the transform does not need random. So
    training starts from the lowest D / (downsampling_ratio · channels) of the spectrum, 1/32 as published,
    and all weights are free to change.

    Raises:
      UserError: the model cannot be such a transform: it has no snake, nearest-neighbour upsampling or too
        few channels.
    """
    config = model.config
    snakes = config.encoder.use_snake and config.decoder.use_snake
    narrow = min(config.encoder.widths[0], config.decoder.widths[0]) < config.io_channels
    if config.decoder.use_nearest_upsample or narrow or not snakes:
        raise UserError(
            "initialization block_transform needs snake activations, transposed convolutions and at least "
            f"{config.io_channels} channels: use torch"
        )
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ResidualUnit):
            *_, pointwise = module.layers
            _fill(pointwise.gain, _RESIDUAL_GAIN)
        if isinstance(module, SnakeBeta):
            _fill(module.beta, _SNAKE_BETA)
        if isinstance(module, Conv) and module.bias is not None:
            _fill(module.bias, 0)

    first_in, *_, last_in = model.encoder.layers
    first_out, *_, last_out = (layer for layer in model.decoder.layers if isinstance(layer, Conv))
    down = [block.layers[-1] for block in model.encoder.layers if isinstance(block, EncoderBlock)]
    up = [block.layers[1] for block in model.decoder.layers if isinstance(block, DecoderBlock)]
    signal = config.io_channels
    _pass_on(first_in, signal)
    _pass_on(last_out, signal)
    for downsample, upsample in zip(down, reversed(up), strict=True):
        # The transposed kernel is [width, coefficients, samples].
        room = min(downsample.direction.shape[2], upsample.direction.shape[1])
        transform = _block_transform(signal, config.io_channels, downsample.stride)[..., :room]
        _embed(downsample, transform)
        _embed(upsample, transform.swapaxes(1, 2))
        signal = transform.shape[2]
    latents = min(signal, config.latent_dim)
    _pass_on(last_in, latents)
    _pass_on(first_out, latents)
    # Channels without a latent begin near silence. The second half of the encoder's output is the scale; its
    # softplus is the standard deviation.
    for conv in (last_in, first_out):
        _fill(conv.gain, _NEXT_TO_NOTHING, slice(latents, None))
    if last_in.bias is not None:
        _fill(last_in.bias, math.log(math.expm1(_STD)), slice(config.latent_dim, None))


def _fill(parameter: nnx.Param, value: float, where: slice = slice(None)) -> None:
    array = np.array(parameter[...])
    array[where] = value
    parameter.set_value(constant(array))


def _block_transform(signal: int, audio_channels: int, stride: int) -> Float[np.ndarray, " stride in out"]:
    """The DCT-II of blocks of each of `signal` channels, coefficients in the order of frequency.

    Channels are bands of the previous transforms, lowest first, each with all audio channels. In every other
    band the order of frequencies is reversed.
    """
    cosines = fft.dct(np.eye(stride), axis=0, norm="ortho")  # [frequency, time]
    kernel = np.zeros((stride, signal, stride * signal), np.float32)
    for channel in range(signal):
        band, audio_channel = divmod(channel, audio_channels)
        for frequency in range(stride):
            place = frequency if band % 2 == 0 else stride - 1 - frequency
            output = (band * stride + place) * audio_channels + audio_channel
            kernel[:, channel, output] = cosines[frequency]
    return kernel


def _pass_on(conv: Conv, channels: int) -> None:
    """Makes a convolution pass its first channels on unchanged."""
    _embed(conv, np.eye(channels, dtype=np.float32)[None])


def _embed(conv: Conv, kernel: Float[np.ndarray, "K I O"]) -> None:
    """Puts a kernel into a convolution's first channels, at the taps that fall on one block after padding.

    The outputs of these channels depend on nothing else. The rest of the kernel stays random, scaled to pass
    on a signal's amplitude times `_OTHERS`.
    """
    taps, inputs, outputs = kernel.shape
    random = np.asarray(conv.direction[...])
    width, all_inputs, _ = random.shape
    # The number of products in an output; a transposed convolution spreads its taps over `stride` outputs.
    terms = width * all_inputs / (conv.stride if isinstance(conv, ConvTranspose) else 1)
    start = conv.padding if taps > 1 else width // 2
    whole = random * np.float32(_OTHERS / (np.std(random) * math.sqrt(terms)))
    whole[..., :outputs] = 0
    whole[start : start + taps, :inputs, :outputs] = kernel
    conv.direction.set_value(constant(whole))
    conv.gain.set_value(norms(conv.direction[...], axis=conv._gain_axis))
