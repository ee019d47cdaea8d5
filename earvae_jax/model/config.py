"""The configuration of a model, read from the JSON that is published with the PyTorch weights."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dacite

from earvae_jax.borders import one_line, read_json
from earvae_jax.errors import UserError

# Options that the published code names but cannot run, with the reason. A false value is accepted.
_UNREACHABLE = {
    "causal": "its causal attention raises on the CPU in the published code",
    "cross_attend": "nothing gives the transformer a context to attend to",
    "cond_token_dim": "nothing gives the transformer a context to attend to",
    "global_cond_dim": "nothing gives the transformer a global condition",
    "natten_kernel_size": "neighbourhood attention is not reachable in the published code",
}
# Larger sizes are slips or damage; some would take days or all of the memory before an error appears.
_WIDEST = 1 << 16  # channels of a level, numbers of a latent, inner width of a transformer
_MOST_CHANNELS = 1 << 10  # of audio
_LARGEST_RATIO = 1 << 20  # samples per latent
_DEEPEST = 1 << 10  # blocks of a transformer
_LONGEST_KERNEL = 1 << 10
_LONGEST_SEQUENCE = 1 << 24  # latents
_HIGHEST_RATE = 1_000_000  # Hz


def _check_size(name: str, size: int, largest: int) -> None:
    fits = size is not True and 0 < size <= largest
    _check(fits, f"{name} is {_short(size)}, not a number from 1 to {largest}")


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**30 else f"a number of {number.bit_length()} bits"


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(one_line(f"model config: {message}"))


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The Oobleck encoder; block i maps widths[i] to widths[i+1] channels with strides[i]."""

    in_channels: int = 2  # audio channels
    channels: int = 128  # width of the first level
    latent_dim: int = 32  # output channels: mean and scale together
    c_mults: tuple[int, ...] = (1, 2, 4, 8)  # width of each level, in units of `channels`
    strides: tuple[int, ...] = (2, 4, 8, 8)  # down-sampling factor of each block
    use_snake: bool = False  # SnakeBeta instead of ELU
    tied_activations: bool = True  # a residual unit has one snake twice; else two
    antialias_activation: bool = False  # the last activation runs at twice the rate
    bias: bool = True  # convolutions have a bias

    def __post_init__(self):
        _check_levels("encoder", self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before the first block and after each."""
        return tuple(mult * self.channels for mult in (1, *self.c_mults))


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The Oobleck decoder; it uses the encoder's lists in reverse order."""

    out_channels: int = 2  # audio channels
    channels: int = 128  # width of the last level
    latent_dim: int = 32  # input channels
    c_mults: tuple[int, ...] = (1, 2, 4, 8)  # width of each level, in units of `channels`
    strides: tuple[int, ...] = (2, 4, 8, 8)  # up-sampling factor of each block, the last one first
    use_nearest_upsample: bool = False  # repeat and convolve instead of a transposed convolution
    use_snake: bool = False  # SnakeBeta instead of ELU
    tied_activations: bool = True  # a residual unit has one snake twice; else two
    antialias_activation: bool = False  # each block's first and the last activation run at twice the rate
    final_tanh: bool = True  # squash the output to (−1, 1)
    bias: bool = True  # convolutions but the last have a bias

    def __post_init__(self):
        _check_levels("decoder", self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after the last block and before each, the last block first."""
        return tuple(mult * self.channels for mult in (1, *self.c_mults))


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """`attn_kwargs` of the published transformer."""

    qk_norm: str | None = None  # "l2": unit queries and keys; "ln": a LayerNorm on each head

    def __post_init__(self):
        _check(self.qk_norm in (None, "l2", "ln"), f'qk_norm is {self.qk_norm!r}, not "l2", "ln" or null')


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig:
    """`ff_kwargs` of the published transformer."""

    mult: int = 4  # inner width, in units of the latent width
    no_bias: bool = False  # drops the bias of the output layer and of a plain input layer
    glu: bool = True  # gated input layer
    use_conv: bool = False  # convolutions over time in place of the output layer and a plain input layer
    conv_kernel_size: int = 3  # width of those convolutions

    def __post_init__(self):
        _check_size("ff_kwargs: mult", self.mult, _WIDEST)
        _check_size("ff_kwargs: conv_kernel_size", self.conv_kernel_size, _LONGEST_KERNEL)
        _check(
            not self.use_conv or self.conv_kernel_size % 2 == 1,
            f"ff_kwargs: conv_kernel_size {self.conv_kernel_size} is even, which changes the length",
        )


@dataclasses.dataclass(frozen=True)
class NormConfig:
    """`norm_kwargs` of the published transformer's LayerNorms."""

    bias: bool = False  # beta is trained; otherwise it is a constant in the weight file
    fix_scale: bool = False  # gamma is a constant in the weight file


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The transformer in front of the decoder."""

    depth: int  # number of blocks
    dim_heads: int = 64  # width of a head
    rotary_pos_emb: bool = True  # rotate queries and keys by position
    use_sinusoidal_emb: bool = False  # add scaled sinusoids to the input
    use_abs_pos_emb: bool = False  # add a learned embedding of the position to the input
    abs_pos_emb_max_length: int = 10_000  # longest sequence that the learned embedding knows
    conformer: bool = False  # a convolution module after each attention
    remove_norms: bool = False  # no LayerNorm before attention and feed-forward
    attn_kwargs: AttentionConfig = AttentionConfig()
    ff_kwargs: FeedForwardConfig = FeedForwardConfig()
    norm_kwargs: NormConfig = NormConfig()

    def __post_init__(self):
        _check_size("transformer depth", self.depth, _DEEPEST)
        _check_size("dim_heads", self.dim_heads, _WIDEST)
        _check_size("abs_pos_emb_max_length", self.abs_pos_emb_max_length, _LONGEST_SEQUENCE)
        _check(
            not (self.use_sinusoidal_emb and self.use_abs_pos_emb),
            "use_sinusoidal_emb and use_abs_pos_emb exclude each other",
        )
        _check(
            not self.rotary_pos_emb or self.dim_heads >= self.rotary_dims,
            f"rotary_pos_emb needs {self.rotary_dims} dimensions in each head, dim_heads is {self.dim_heads}",
        )

    @property
    def rotary_dims(self) -> int:
        """The number of leading dimensions of each head that the rotary embedding rotates."""
        return max(self.dim_heads // 2, 32)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model. `sample_rate`, `std_offset` and `tied_activations` are this project's additions."""

    encoder: EncoderConfig
    decoder: DecoderConfig
    latent_dim: int  # width of a latent
    downsampling_ratio: int  # samples per latent
    io_channels: int = 2  # audio channels
    transformer: TransformerConfig | None = None
    sample_rate: int | None = None  # Hz
    std_offset: float = 0.0  # added to softplus(scale); 1e-4 in other models than εar-VAE

    def __post_init__(self):
        encoder, decoder = self.encoder, self.decoder
        _check_size("downsampling_ratio", self.downsampling_ratio, _LARGEST_RATIO)
        _check_size("latent_dim", self.latent_dim, _WIDEST)
        _check_size("io_channels", self.io_channels, _MOST_CHANNELS)
        for name, half in (("encoder", encoder), ("decoder", decoder)):
            ratio = math.prod(half.strides)
            _check(
                ratio == self.downsampling_ratio,
                f"downsampling_ratio is {self.downsampling_ratio}, the {name}'s strides multiply to {ratio}",
            )
        _check(
            encoder.latent_dim == 2 * self.latent_dim,
            f"encoder latent_dim is {encoder.latent_dim}, not twice latent_dim {self.latent_dim}",
        )
        _check(
            decoder.latent_dim == self.latent_dim,
            f"decoder latent_dim is {decoder.latent_dim}, not latent_dim {self.latent_dim}",
        )
        _check(
            encoder.in_channels == decoder.out_channels == self.io_channels,
            f"io_channels {self.io_channels}, in_channels {encoder.in_channels} and "
            f"out_channels {decoder.out_channels} are not equal",
        )
        if self.transformer is not None:
            _check(
                self.latent_dim % self.transformer.dim_heads == 0,
                f"latent_dim {self.latent_dim} is not a multiple of dim_heads {self.transformer.dim_heads}",
            )
            inner = self.transformer.ff_kwargs.mult * self.latent_dim
            _check_size("ff_kwargs: the inner width", inner, 16 * _WIDEST)
        if self.sample_rate is not None:
            _check_size("sample_rate", self.sample_rate, _HIGHEST_RATE)
        _check(0 <= self.std_offset <= 1, f"std_offset is {self.std_offset}, not a number from 0 to 1")

    @classmethod
    def from_json(cls, path: str | Path) -> "ModelConfig":
        """Reads a config file, published or your own; a `UserError` names the file and the offending key."""
        values = read_json(path, "config file")
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Builds a config from the published nesting; refuses unknown keys and options that cannot run."""
        _check(isinstance(values, Mapping), "the file holds no JSON object")
        values = dict(values)
        for half in ("encoder", "decoder"):
            _check(isinstance(values.get(half), Mapping), f"{half} is missing")
            values[half] = _unwrapped(half, values[half])
        transformer = values.get("transformer")
        if transformer is not None:
            _check(isinstance(transformer, Mapping), "transformer is not an object")
            options = _unwrapped("transformer", transformer, beside=("depth",))
            attention = options.get("attn_kwargs", {})
            _check(isinstance(attention, Mapping), "transformer: attn_kwargs is not an object")
            for name, reason in _UNREACHABLE.items():
                asked = options.get(name) or attention.get(name)
                _check(not asked, f"transformer: {name} is refused: {reason}")
            values["transformer"] = {
                key: _without(value, _UNREACHABLE) if key == "attn_kwargs" else value
                for key, value in _without(options, _UNREACHABLE).items()
            }
        reading = dacite.Config(strict=True, type_hooks={tuple[int, ...]: _no_object})
        try:
            return dacite.from_dict(cls, _as_tuples(values), reading)
        except dacite.UnexpectedDataError as error:
            raise UserError(one_line(f"model config: unknown key {', '.join(sorted(error.keys))}")) from None
        except dacite.DaciteFieldError as error:
            raise UserError(one_line(f"model config: {error}")) from None

    def to_dict(self) -> dict[str, Any]:
        """The config in the published nesting, with every option; `from_dict` reads it back."""
        values = dataclasses.asdict(self)
        values["encoder"] = {"config": values["encoder"]}
        values["decoder"] = {"config": values["decoder"]}
        if values["transformer"] is not None:
            options = values["transformer"]
            values["transformer"] = {"depth": options.pop("depth"), "config": options}
        return json.loads(json.dumps(values))  # tuples become lists, as they come back from a file


def _check_levels(name: str, half: EncoderConfig | DecoderConfig) -> None:
    levels = len(half.c_mults), len(half.strides)
    _check(levels[0] == levels[1] > 0, f"{name}: c_mults has {levels[0]} entries, strides {levels[1]}")
    _check(all(stride > 1 for stride in half.strides), f"{name}: strides {half.strides} must all be above 1")
    sizes = (half.channels, half.latent_dim, *half.c_mults)
    _check(min(sizes) > 0, f"{name}: channels, latent_dim and c_mults must be positive")
    _check_size(f"{name}: latent_dim", half.latent_dim, 2 * _WIDEST)
    for mult in (1, *half.c_mults):
        _check_size(f"{name}: the width of a level", mult * half.channels, _WIDEST)


def _unwrapped(name: str, values: Mapping[str, Any], beside: tuple[str, ...] = ()) -> dict[str, Any]:
    """Makes {"config": {…}, beside…} one flat object."""
    options = values.get("config", {})
    _check(isinstance(options, Mapping), f"{name}: config is not an object")
    unknown = set(values) - {"config", *beside}
    _check(not unknown, f"unknown key {', '.join(sorted(unknown))} in {name}")
    return {**options, **{key: values[key] for key in beside if key in values}}


def _without(values: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: value for key, value in values.items() if key not in names}


def _as_tuples(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _as_tuples(value) for key, value in values.items()}
    return tuple(values) if isinstance(values, list) else values


def _no_object(values: Any) -> Any:
    """dacite would take an object's keys for the numbers; it refuses text, and names the field."""
    return json.dumps(values) if isinstance(values, Mapping) else values
