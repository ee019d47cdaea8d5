"""The configuration of a training run: JSON, checked strictly, with dotted overrides."""

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from earvae_jax.borders import exists, one_line, read_json
from earvae_jax.errors import UserError
from earvae_jax.model.config import ModelConfig
from earvae_jax.model.lengths import latents_of, samples_of
from earvae_jax.train.config.objective import ObjectiveConfig
from earvae_jax.train.config.parts import AdversarialConfig, DataConfig, OptimizerConfig
from earvae_jax.train.config.values import (
    expect,
    expect_not_negative,
    expect_positive,
    override,
    parse_override,
    read_config,
    without_comments,
)

BUNDLED = Path(str(resources.files("earvae_jax.configs")))  # folder of the configs in the package
_SEEDS = 2**31  # JAX's default integers have 32 bits


def bundled_or_file(name: str) -> Path:
    """The path of a config file, which may be named as one of the package.

    Raises:
      UserError: it looks like a name, and there is no such file.
    """
    path = Path(name)
    if not exists(path) and path.name == name:
        path = BUNDLED / name
        if not exists(path):
            bundled = ", ".join(sorted(found.name for found in BUNDLED.glob("train_*.json")))
            raise UserError(f"{name}: no such config file; the bundled ones are {bundled}")
    return path


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run."""

    model: Mapping[
        str, Any
    ]  # a model config as `ModelConfig.from_dict` reads it; in JSON also the name of a file with one
    optimizer: OptimizerConfig
    steps: int  # optimizer steps of the whole run
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    kl_weight: float = 1e-4  # of the KL divergence in the objective
    # How new weights begin: as torch's (published), or as a cosine transform of blocks and its inverse.
    initialization: typing.Literal["torch", "block_transform"] = "torch"
    adversarial: AdversarialConfig | None = None  # None: no discriminator
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    seed: int = 0  # of the initial weights, the sampling noise, the crops and the synthetic music
    ema_decay: float = 0.9999  # of the averaged weights that are validated and exported
    accumulate: int = 1  # the batch is computed in so many parts, one after the other
    # Recompute activations in the backward pass, to save memory on accelerators. On a CPU it saves nothing of
    # note (287 and 289 MB for the demo, 917 and 924 for the 44.1 kHz model at a quarter of its width).
    rematerialize: bool = False
    # Split weights, averages and the optimizer's moments over the devices instead of keeping them on each.
    shard_state: bool = False
    compute_dtype: typing.Literal["float32", "bfloat16"] = "float32"  # of convolutions; losses stay float32
    max_skipped_steps: int = 10  # training stops after so many non-finite steps in a row
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps
    songs_every: int = 10_000  # steps, a multiple of `validate_every`
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 3  # number of latest ones; the best by validation is kept too

    def __post_init__(self):
        expect_positive(
            self,
            "steps",
            "accumulate",
            "max_skipped_steps",
            "log_every",
            "validate_every",
            "songs_every",
            "checkpoint_every",
            "keep_checkpoints",
        )
        expect_not_negative(self, "kl_weight")
        expect(0 <= self.seed < _SEEDS, "seed", self.seed, f"a number from 0 to {_SEEDS - 1}")
        expect(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a number in [0, 1)")
        expect(
            self.data.batch_size % self.accumulate == 0,
            "data.batch_size",
            self.data.batch_size,
            f"a multiple of accumulate, {self.accumulate}",
        )
        if self.data.songs:
            expect(
                self.songs_every % self.validate_every == 0,
                "songs_every",
                self.songs_every,
                f"a multiple of validate_every, {self.validate_every}",
            )
        self._check_crop()

    def _check_crop(self) -> None:
        """Refuses crops that the model, the objective or the discriminator cannot take."""
        model, crop = self.model_config, self.data.crop_samples  # a wrong model config is refused here
        expect(model.sample_rate is not None, "model.sample_rate", None, "the rate of the music in Hz")
        expect(model.io_channels == 2, "model.io_channels", model.io_channels, "2: training data is stereo")
        ratio = model.downsampling_ratio
        expect(
            crop % ratio == 0,
            "data.crop_samples",
            crop,
            f"a multiple of the model's {ratio} samples per latent",
        )
        latents = latents_of(crop, model.encoder.strides)
        transformer = model.transformer
        if transformer is not None and transformer.use_abs_pos_emb:
            longest = transformer.abs_pos_emb_max_length
            expect(
                latents <= longest,
                "data.crop_samples",
                crop,
                f"at most {longest} latents, the model's abs_pos_emb_max_length; these are {latents}",
            )
        decoded = samples_of(latents, model.decoder.strides, nearest=model.decoder.use_nearest_upsample)
        if decoded != crop:
            raise UserError(
                f"model: its decoder gives back {decoded} samples of a crop of {crop}, but losses need as "
                "many: with odd strides set decoder.config.use_nearest_upsample"
            )
        for part, frame in self._frames.items():
            expect(
                crop >= frame,
                "data.crop_samples",
                crop,
                f"at least {frame}, the largest STFT frame of {part}",
            )

    @property
    def _frames(self) -> dict[str, int]:
        """The largest STFT frame of each part, in samples."""
        frames = {"objective": self.objective.shortest_audio}
        if self.adversarial is not None:
            frames["adversarial.discriminator"] = max(self.adversarial.discriminator.n_ffts)
        return frames

    @property
    def shortest_crop(self) -> int:
        """Samples that a crop must have at least."""
        return max(self._frames.values())

    @property
    def model_config(self) -> ModelConfig:
        """The model's configuration."""
        return ModelConfig.from_dict(self.model)

    @property
    def sample_rate(self) -> int:
        """The sample rate of the music in Hz."""
        rate = self.model_config.sample_rate
        assert rate is not None  # a config without one is refused
        return rate

    def to_dict(self) -> dict[str, Any]:
        """The config as values for JSON; `from_dict` reads them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Builds a config; refuses wrong keys and values by name; keys that begin with # are comments."""
        try:
            if not isinstance(values, Mapping):
                raise UserError("the file holds no JSON object")
            return read_config(cls, without_comments(values))
        except UserError as error:
            raise UserError(one_line(f"training config: {error}")) from None

    @classmethod
    def from_json(cls, path: str | Path, overrides: Sequence[str] = ()) -> "TrainConfig":
        """Reads a config file and applies `key.key=value` overrides (values in JSON, or plain strings).

        If `model` is the name of a file, it is looked up beside the config, then among the bundled ones; a
        name in an override is looked up in the working directory first. Other overrides change values of the
        file.
        """
        path = Path(path)
        values = read_json(path, "config file")
        try:
            if isinstance(values, dict):
                _apply(values, overrides, path.parent)
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _apply(values: dict[str, Any], overrides: Sequence[str], folder: Path) -> None:
    """Applies overrides to the values of a config file in `folder`: first `model`, then the others."""
    places = [folder, BUNDLED]
    changes = [parse_override(each) for each in overrides]
    for key, value in changes:
        if key == "model":
            values["model"], places = value, [Path(), folder, BUNDLED]
    if isinstance(values.get("model"), str):
        values["model"] = _model_values(values["model"], places)
    for key, value in changes:
        if key != "model":
            override(values, key, value)


def _model_values(name: str, places: Sequence[Path]) -> dict[str, Any]:
    """The model config of the first file of this name."""
    paths = list(dict.fromkeys(place / name for place in places))
    for path in paths:
        if exists(path):
            return ModelConfig.from_json(path).to_dict()
    raise UserError(f"model is {name}; no such file: {', '.join(map(str, paths))}")
