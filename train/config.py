"""The configuration of a training run: JSON, checked strictly, with dotted overrides."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dacite

from earvae_jax.config import ModelConfig
from earvae_jax.errors import UserError

from .discriminator import DiscriminatorConfig
from .objective import ObjectiveConfig


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(f"training config: {message}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the model hears."""

    train: tuple[str, ...] = ()  # folders, files or manifests (.txt, one path a line); none: synthetic music
    validation: tuple[
        str, ...
    ] = ()  # the same, held out; none: some of the training files, or synthetic music
    validation_items: int = 8  # crops that validation measures
    crop_samples: int = 65_536  # length of a training example, a multiple of the model's downsampling ratio
    batch_size: int = 8  # examples of one optimizer step, over all devices and accumulation steps
    flip_polarity: bool = True  # negate half of the examples
    swap_channels: bool = True  # exchange left and right in half of them
    gain_db: tuple[float, float] = (0.0, 0.0)  # range of a random gain
    silence_db: float = -60.0  # crops with a lower RMS level (dB below full scale) are drawn again
    threads: int = 2  # that load and render
    buffered_batches: int = 4  # kept ready

    def __post_init__(self):
        _check(self.batch_size > 0, f"data.batch_size is {self.batch_size}, not positive")
        _check(self.crop_samples > 0, f"data.crop_samples is {self.crop_samples}, not positive")
        _check(self.validation_items > 0, f"data.validation_items is {self.validation_items}, not positive")
        _check(
            self.threads > 0 and self.buffered_batches > 0,
            "data.threads and buffered_batches must be positive",
        )
        _check(self.gain_db[0] <= self.gain_db[1], f"data.gain_db {list(self.gain_db)} must be [low, high]")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with the inverse-root schedule (1 − warmup^(n+1)) · learning_rate · (1 + n/decay_steps)^-½."""

    learning_rate: float  # peak
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 1e-3
    epsilon: float = 1e-8
    warmup: float = 0.999  # the start of the schedule; 0 switches the slow start off
    decay_steps: float = 200_000  # the learning rate is down to 1/√2 after as many steps
    cooldown_steps: int = 0  # at the end of training the rate falls to zero over so many steps
    clip_norm: float | None = None  # gradients with a larger global norm are scaled down to it

    def __post_init__(self):
        _check(self.learning_rate > 0, f"learning_rate is {self.learning_rate}, not positive")
        _check(0 <= self.warmup < 1, f"warmup is {self.warmup}, not in [0, 1)")
        _check(self.decay_steps > 0, f"decay_steps is {self.decay_steps}, not positive")
        _check(self.clip_norm is None or self.clip_norm > 0, f"clip_norm is {self.clip_norm}, not positive")


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial part of the objective."""

    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4)
    kind: typing.Literal["least_squares", "hinge"] = "least_squares"
    weight: float = 0.1  # of the generator's adversarial term
    feature_matching_weight: float = 5.0
    start_step: int = (
        10_000  # generator steps before the adversarial terms and the discriminator's training begin
    )

    def __post_init__(self):
        _check(self.start_step >= 0, f"adversarial.start_step is {self.start_step}, negative")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    model: Mapping[
        str, Any
    ]  # a model config as `ModelConfig.from_dict` reads it; in JSON also a file beside this one
    optimizer: OptimizerConfig
    steps: int  # optimizer steps of the whole run
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    kl_weight: float = 1e-4  # of the KL divergence in the objective
    # Of new weights: torch's, as published, or a cosine transform of blocks and its inverse.
    initialization: typing.Literal["torch", "block_transform"] = "torch"
    adversarial: AdversarialConfig | None = None  # none: no discriminator
    data: DataConfig = DataConfig()
    seed: int = 0  # of the initial weights, the sampling noise, the crops and the synthetic music
    ema_decay: float = 0.9999  # of the averaged weights that are validated and exported
    accumulate: int = 1  # the batch is computed in so many parts, one after the other
    rematerialize: bool = False  # recompute activations in the backward pass: less memory, a third more time
    compute_dtype: typing.Literal["float32", "bfloat16"] = "float32"  # of convolutions; losses stay float32
    max_skipped_steps: int = 10  # training stops after so many non-finite steps in a row
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 3  # latest ones; the best by validation is kept besides

    def __post_init__(self):
        for name in (
            "steps",
            "accumulate",
            "max_skipped_steps",
            "log_every",
            "validate_every",
            "checkpoint_every",
        ):
            _check(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, not positive")
        _check(self.keep_checkpoints > 0, f"keep_checkpoints is {self.keep_checkpoints}, not positive")
        _check(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}, not in [0, 1)")
        model = self.model_config  # refuses a wrong model config
        _check(model.sample_rate is not None, "the model config needs a sample_rate")
        crop, ratio = self.data.crop_samples, model.downsampling_ratio
        _check(
            crop % ratio == 0,
            f"data.crop_samples {crop} is not a multiple of the model's {ratio} samples a latent",
        )
        _check(
            self.data.batch_size % self.accumulate == 0,
            f"data.batch_size {self.data.batch_size} is not a multiple of accumulate, {self.accumulate}",
        )

    @property
    def model_config(self) -> ModelConfig:
        """The model's configuration."""
        return ModelConfig.from_dict(self.model)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `from_dict` reads it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Builds a config; unknown and mistyped keys are refused by name; a key after a # is a comment."""
        _check(isinstance(values, Mapping), "the file holds no JSON object")
        values = _without_comments(values)
        unknown = _unknown_keys(cls, values)
        _check(not unknown, f"unknown key {', '.join(unknown)}")
        try:
            return dacite.from_dict(
                cls, dict(values), dacite.Config(cast=[tuple], type_hooks={float: _as_float})
            )
        except dacite.DaciteFieldError as error:
            raise UserError(f"training config: {error}") from None

    @classmethod
    def from_json(cls, path: str | Path, overrides: Sequence[str] = ()) -> "TrainConfig":
        """Reads a config file and applies `key.key=value` overrides (values in JSON, or plain strings)."""
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such config file") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: not a readable JSON file ({error})") from None
        try:
            _check(isinstance(values, dict), "the file holds no JSON object")
            for override in overrides:
                _override(values, override)
            if isinstance(values.get("model"), str):
                values["model"] = ModelConfig.from_json(path.parent / values["model"]).to_dict()
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _without_comments(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: _without_comments(value) for key, value in values.items() if not key.startswith("#")}


def _as_float(value: Any) -> Any:
    """Lets JSON write 1 for 1.0; anything else is left for dacite to refuse."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _unknown_keys(kind: type, values: Any, prefix: str = "") -> list[str]:
    """Dotted names of the keys that no field of the dataclass, or of those inside it, has."""
    if not isinstance(values, Mapping):
        return []
    fields = typing.get_type_hints(kind)
    unknown = [prefix + str(key) for key in values if key not in fields]
    for key, value in values.items():
        options = typing.get_args(fields.get(key)) if _is_union(fields.get(key)) else (fields.get(key),)
        for option in options:
            if dataclasses.is_dataclass(option):
                unknown += _unknown_keys(option, value, f"{prefix}{key}.")
    return unknown


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _override(values: dict[str, Any], override: str) -> None:
    """Sets one dotted key; levels that the file leaves out are added."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected key=value, such as optimizer.learning_rate=1e-4")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        level = values.get(parent)
        values[parent] = dict(level) if isinstance(level, Mapping) else {}
        values = values[parent]
    values[last] = value
