"""An alternative to torch's initial weights, which training would first have to unlearn."""

import math

import numpy as np
from flax import nnx
from jaxtyping import Float
from scipy import fft
from scipy.linalg import hadamard

from earvae_jax.errors import UserError
from earvae_jax.model.initial_values import constant, norms
from earvae_jax.model.layers import Conv, ConvTranspose, SnakeBeta
from earvae_jax.model.oobleck import Decoder, DecoderBlock, Encoder, EncoderBlock, ResidualUnit
from earvae_jax.model.vae import EarVAE

# Of the convolutions that end the residual units. With 0.1, thirty of them in a row added more sound above
# 1 kHz than music has there, and training went on from 2.3 dB instead of the transform's 8.2.
_RESIDUAL_GAIN = 0.01
_SNAKE_BETA = 6.0  # where the signal passes: e^−6·sin² is added, 50 dB below music and less
_OTHERS = 0.3  # amplitude of the channels that stay random, relative to the signal
_NEXT_TO_NOTHING = 0.01  # a gain of zero would leave its direction without a gradient
# Of the latents, below those of quiet music: the decoder hears more signal than noise from the first step on.
_STD = 0.005
# Of the latents; on music this share loses least (`python -m earvae_jax.train.studies.transforms`).
_MID = 5 / 8


def start_as_transform(model: EarVAE) -> None:
    """Sets the weights so that the model begins as an orthogonal block transform and its inverse.

    Torch's initialisation damps a signal until little more than the biases is left, and a random encoder
    throws away what the decoder needs. Here each strided convolution begins as the cosine transform (DCT-II)
    of non-overlapping blocks of `stride` samples of each signal channel, stereo as mid and side. The cascade
    keeps as many of the lowest bands as there are channels. The last convolution of the encoder turns them
    to the lowest cosines of the whole block, more of mid than of side, and the decoder holds the same
    numbers. Residual units begin near silence, snakes on the signal's way nearly linear, and channels that
    the transform does not need random. So training starts from the lowest D / (downsampling_ratio · channels)
    of the spectrum, 1/32 as published, and all weights are free to change.

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
        if isinstance(module, Encoder | Decoder | EncoderBlock | DecoderBlock):
            for layer in module.layers:  # not those inside the residual units
                if isinstance(layer, SnakeBeta):
                    _fill(layer.beta, _SNAKE_BETA)
        if isinstance(module, Conv) and module.bias is not None:
            _fill(module.bias, 0)

    first_in, *_, last_in = model.encoder.layers
    first_out, *_, last_out = (layer for layer in model.decoder.layers if isinstance(layer, Conv))
    down = [block.layers[-1] for block in model.encoder.layers if isinstance(block, EncoderBlock)]
    up = [block.layers[1] for block in model.decoder.layers if isinstance(block, DecoderBlock)]
    cascade = _mid_side(config.io_channels)
    _embed(first_in, cascade)
    _embed(last_out, cascade)
    for downsample, upsample in zip(down, reversed(up), strict=True):
        # The transposed kernel is [width, coefficients, samples].
        room = min(downsample.direction.shape[2], upsample.direction.shape[1])
        transform = _block_transform(cascade.shape[2], config.io_channels, downsample.stride)[..., :room]
        _embed(downsample, transform)
        _embed(upsample, transform.swapaxes(1, 2))
        cascade = _after(cascade, transform)
    latents = min(cascade.shape[2], config.latent_dim)
    turn = _nearest_rotation(cascade, _lowest_cosines(config.downsampling_ratio, config.io_channels, latents))
    _embed(last_in, turn[None])
    _embed(first_out, turn.T[None])
    # Channels without a latent begin near silence. The second half of the encoder's output is the scale; its
    # softplus is the standard deviation.
    for conv, used in ((last_in, latents), (first_out, cascade.shape[2])):
        _fill(conv.gain, _NEXT_TO_NOTHING, slice(used, None))
    if last_in.bias is not None:
        _fill(last_in.bias, math.log(math.expm1(_STD)), slice(config.latent_dim, None))


def _fill(parameter: nnx.Param, value: float, where: slice = slice(None)) -> None:
    array = np.array(parameter[...])
    array[where] = value
    parameter.set_value(constant(array))


def _mid_side(channels: int) -> Float[np.ndarray, " 1 in out"]:
    """Left and right to mid and side and back, orthonormal; other numbers of channels stay as they are."""
    signals = hadamard(2) / math.sqrt(2) if channels == 2 else np.eye(channels)
    return signals[None].astype(np.float32)


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


def _after(
    cascade: Float[np.ndarray, "T C mid"], transform: Float[np.ndarray, " stride mid out"]
) -> Float[np.ndarray, "T2 C out"]:
    """One transform of a whole block in place of two in a row."""
    both = np.einsum("tcs,kso->ktco", cascade, transform)
    return both.reshape(-1, *both.shape[2:])


def _lowest_cosines(block: int, channels: int, count: int) -> Float[np.ndarray, "T C count"]:
    """The lowest `count` cosines over the channels of a block: of stereo, `_MID` of them are of mid."""
    mid = max(min(round(count * _MID), block), count - block)
    shares = (
        [mid, count - mid] if channels == 2 else [len(range(c, count, channels)) for c in range(channels)]
    )
    cosines = fft.dct(np.eye(block), axis=0, norm="ortho").T  # [time, frequency]
    signals = _mid_side(channels)[0]
    parts = [
        np.einsum("tf,c->tcf", cosines[:, :share], signals[:, channel])
        for channel, share in enumerate(shares)
    ]
    return np.concatenate(parts, axis=2)


def _nearest_rotation(
    cascade: Float[np.ndarray, "T C out"], wanted: Float[np.ndarray, "T C kept"]
) -> Float[np.ndarray, "out kept"]:
    """The orthonormal directions among the cascade's outputs that are closest to the wanted ones."""
    left, _, right = np.linalg.svd(np.einsum("tco,tck->ok", cascade, wanted), full_matrices=False)
    return (left @ right).astype(np.float32)


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
    conv.gain.set_value(norms(conv.direction[...], axis=conv.gain_axis))
