"""Training batches of recordings or synthetic music; one seed always gives the same, also after resuming."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import grain
import numpy as np

from earvae_jax.errors import UserError
from earvae_jax.train.config import DataConfig
from earvae_jax.train.data import synthetic
from earvae_jax.train.data.crops import Cropper, CropReader
from earvae_jax.train.data.recordings import Recording, find, split

_ENDLESS = 1 << 40  # examples; Grain wants a length
_SYNTHETIC = "synthetic"  # fingerprint of music that no file can change


@dataclasses.dataclass(frozen=True)
class TrainingExamples:
    """The function from an example's number to its audio, `[crop_samples, 2]`, and what it depends on."""

    draw: Callable[[int], np.ndarray | None]  # the crop of a number; None if no sound was found
    config: DataConfig
    seed: int
    fingerprint: str  # of the recordings; it changes when a run with this config would get other audio
    skipped: Mapping[Path, str]  # files found unusable so far, with the reason

    def __call__(self, number: int) -> np.ndarray | None:
        audio = self.draw(number)
        if audio is None:
            return None
        return augment(audio, np.random.default_rng((self.seed, 2, number)), self.config)


class _ProcessShare:
    """The numbers of the examples that one process loads.

    Batch b of all processes together holds the examples b·B … (b+1)·B − 1, and process p loads the p-th block
    of them. So the global batch does not depend on the number of processes.
    """

    def __init__(self, process_index: int, process_count: int, batch_size: int):
        self.index, self.count, self.share = process_index, process_count, batch_size // process_count

    def __len__(self) -> int:
        return _ENDLESS // self.count

    def __getitem__(self, position: int) -> int:
        batch, row = divmod(position, self.share)
        return (batch * self.count + self.index) * self.share + row


def augment(audio: np.ndarray, rng: np.random.Generator, config: DataConfig) -> np.ndarray:
    """Changes polarity, order of the channels and gain at random; `[T, C]`."""
    gain = 10 ** (rng.uniform(*config.gain_db) / 20)
    if config.flip_polarity and rng.random() < 0.5:
        gain = -gain
    if config.swap_channels and rng.random() < 0.5:
        audio = audio[:, ::-1]
    return np.ascontiguousarray(audio * np.float32(gain))


def training_examples(config: DataConfig, *, sample_rate: int, seed: int) -> TrainingExamples:
    """The endless training data of a run.

    Raises:
        UserError: the folders hold no audio, none that can be read, or none as long as a crop.
    """

    def render(number: int) -> np.ndarray:
        return synthetic.render(2 * seed, number, samples=config.crop_samples, sample_rate=sample_rate)

    if not config.train:
        return TrainingExamples(render, config, seed, _SYNTHETIC, {})
    files = training_files(config, sample_rate=sample_rate)
    reader = CropReader(files, config, sample_rate=sample_rate, seed=seed)

    def draw(number: int) -> np.ndarray | None:
        made = np.random.default_rng((seed, 3, number)).random() < config.synthetic_share
        return render(number) if made else reader.draw(number)

    return TrainingExamples(draw, config, seed, reader.fingerprint, reader.skipped)


def training_batches(
    example: Callable[[int], np.ndarray | None],
    config: DataConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[np.ndarray]:
    """Endless batches `[batch_size / process_count, crop_samples, 2]` of this process.

    `get_state` and `set_state` carry the position; a state is valid for this process and process count only.
    """
    if config.batch_size % process_count:
        raise UserError(f"data.batch_size {config.batch_size} cannot be split over {process_count} processes")
    share = _ProcessShare(process_index, process_count, config.batch_size)
    options = grain.ReadOptions(
        num_threads=config.threads, prefetch_buffer_size=config.buffered_batches * share.share
    )
    # Batching after to_iter_dataset drops examples that are None.
    dataset = grain.MapDataset.source(share).map(example).to_iter_dataset(options)
    return iter(dataset.batch(share.share, drop_remainder=True))


def validation_audio(config: DataConfig, *, sample_rate: int, seed: int) -> np.ndarray:
    """Held-out crops `[validation_items, crop_samples, 2]`, the same in every run with this seed.

    They come from the validation files, from training files held out, or from synthetic music that is never
    trained on.
    """
    count = config.validation_items
    if config.validation or config.train:
        files = validation_files(config, sample_rate=sample_rate)
        reader = CropReader(files, config, sample_rate=sample_rate, seed=seed + 1)
        drawn = map(reader.draw, range(100 * count))
        crops = list(itertools.islice((crop for crop in drawn if crop is not None), count))
        if len(crops) < count:
            raise UserError(
                f"validation: only {len(crops)} of {count} crops are readable and louder than "
                f"{config.silence_db} dB (data.silence_db); {len(files)} files such as {files[0].path}"
            )
        return np.stack(crops)
    music = 2 * seed + 1  # not the endless data set that training uses
    return np.stack(
        [
            synthetic.render(music, number, samples=config.crop_samples, sample_rate=sample_rate)
            for number in range(count)
        ]
    )


def training_files(config: DataConfig, *, sample_rate: int) -> list[Recording]:
    """The recordings to train on: all of `train` except those held out for validation.

    Raises:
        UserError: `validation` leaves none of them.
    """
    recordings = find(config.train, "data.train")
    if not config.validation:
        return split(recordings, _usable(config, sample_rate))[0]
    held = {recording.path.resolve() for recording in find(config.validation, "data.validation")}
    rest = [recording for recording in recordings if recording.path.resolve() not in held]
    if not rest:
        raise UserError(
            f"data.validation holds all {len(recordings)} audio files of data.train: none is left to train on"
        )
    return rest


def validation_files(config: DataConfig, *, sample_rate: int) -> list[Recording]:
    """The recordings to validate on."""
    if config.validation:
        return find(config.validation, "data.validation")
    return split(find(config.train, "data.train"), _usable(config, sample_rate))[1]


def _usable(config: DataConfig, sample_rate: int) -> Callable[[Recording], bool]:
    cropper = Cropper(config, sample_rate)
    return lambda recording: cropper.usable(recording.path)
