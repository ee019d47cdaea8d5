"""The parts of a recipe besides the objective: data, optimizer, discriminator."""

import dataclasses
import typing

from earvae_jax.train.config.values import expect, expect_not_negative, expect_positive


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The audio for training and validation."""

    train: tuple[str, ...] = ()  # folders, files or manifests (.txt, one path a line); none: synthetic music
    validation: tuple[
        str, ...
    ] = ()  # the same, held out; none: a twentieth of the training files, or synthetic music
    synthetic_share: float = 0.0  # part of the training examples that are synthetic beside recordings
    songs: tuple[str, ...] = ()  # whole songs, measured every `songs_every` steps: folders, files, manifests
    validation_items: int = 8  # crops that validation measures
    crop_samples: int = 65_536  # length of a training example, a multiple of the model's downsampling ratio
    batch_size: int = 8  # examples of one optimizer step, over all devices and accumulation steps
    flip_polarity: bool = True  # negate half of the examples
    swap_channels: bool = True  # exchange left and right in half of the examples
    gain_db: tuple[float, float] = (0.0, 0.0)  # range of a random gain
    silence_db: float = -60.0  # crops with a lower RMS level (dB below full scale) are drawn again
    threads: int = 2  # threads that load and render examples
    buffered_batches: int = 4  # batches prepared ahead

    def __post_init__(self):
        for name in ("train", "validation", "songs"):
            places = getattr(self, name)
            expect(all(places), name, places, "paths, none of them empty")
        expect_positive(self, "validation_items", "crop_samples", "batch_size", "threads", "buffered_batches")
        expect(self.gain_db[0] <= self.gain_db[1], "gain_db", self.gain_db, "[low, high]")
        expect(
            0 <= self.synthetic_share <= 1, "synthetic_share", self.synthetic_share, "a number from 0 to 1"
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with the inverse-root schedule (1 − warmup^(n+1)) · learning_rate · (1 + n/decay_steps)^-½."""

    learning_rate: float  # peak
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 1e-3
    epsilon: float = 1e-8
    warmup: float = 0.999  # how slowly the learning rate rises at first; 0: no slow start
    decay_steps: float = 200_000  # after so many steps the learning rate has fallen to 1/√2
    cooldown_steps: int = 0  # at the end of training the rate falls to zero over so many steps
    clip_norm: float | None = None  # gradients with a larger global norm are scaled down to it

    def __post_init__(self):
        expect_positive(self, "learning_rate", "epsilon", "decay_steps")
        expect_not_negative(self, "weight_decay", "cooldown_steps")
        expect(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        expect(0 <= self.warmup < 1, "warmup", self.warmup, "a number in [0, 1)")
        clips = self.clip_norm is None or self.clip_norm > 0
        expect(clips, "clip_norm", self.clip_norm, "a positive number or null")


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators, one per resolution."""

    n_ffts: tuple[int, ...] = (2048, 1024, 512, 256, 128)  # window length = n_fft, hop = n_fft // 4
    filters: int = 64  # channels of every hidden layer
    dilations: tuple[int, ...] = (1, 2, 4)  # of the middle layers, along time

    def __post_init__(self):
        expect_positive(self, "filters")
        expect(
            bool(self.n_ffts) and min(self.n_ffts) >= 4,
            "n_ffts",
            self.n_ffts,
            "a list of sizes of at least 4",
        )
        expect(all(d > 0 for d in self.dilations), "dilations", self.dilations, "positive numbers")


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial part of the objective."""

    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4)
    kind: typing.Literal["least_squares", "hinge"] = "least_squares"
    weight: float = 0.1  # of the generator's adversarial term
    feature_matching_weight: float = 5.0
    start_step: int = 10_000  # generator steps before the discriminator's training begins
    alone_steps: int = 0  # steps from there in which only the discriminator learns from its judgement
    ramp_steps: int = 0  # steps after that in which the generator's adversarial weights rise from 0

    def __post_init__(self):
        expect_not_negative(
            self, "weight", "feature_matching_weight", "start_step", "alone_steps", "ramp_steps"
        )
