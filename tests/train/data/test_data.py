"""Training data: what is drawn, in which order, by whom, and what happens to files that are no good."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("grain", reason="training data needs grain")

from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.errors import UserError
from earvae_jax.train.config import DataConfig
from earvae_jax.train.data import batches as data
from earvae_jax.train.data import crops, recordings

RATE = 44_100
CROP = 1024


def _config(folder=None, **changes) -> DataConfig:
    options = {
        "crop_samples": CROP,
        "batch_size": 4,
        "silence_db": -90.0,
        "threads": 2,
        "buffered_batches": 1,
        "train": () if folder is None else (str(folder),),
    }
    return DataConfig(**(options | changes))


def _write(path, seconds=0.2, *, rate=RATE, channels=2, level=0.1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    soundfile.write(path, level * noise, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


@pytest.fixture
def music(tmp_path):
    """Ramps: the value says the file (tens) and the place in it, so that a crop tells where it comes from."""
    for number in range(6):
        place = np.arange(8 * CROP) / (16 * CROP)
        ramp = np.stack([place, -place], axis=1) / 2 + 0.01 * number
        path = tmp_path / "music" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, ramp, RATE, subtype="FLOAT")
    return tmp_path / "music"


def _batches(config, count=3, *, process_index=0, process_count=1, seed=0):
    example = data.training_examples(config, sample_rate=RATE, seed=seed)
    batches = data.training_batches(example, config, process_index=process_index, process_count=process_count)
    return list(itertools.islice(batches, count))


def _paths(recordings):
    return [recording.path for recording in recordings]


def _reader(config, seed=0):
    return crops.CropReader(
        data.training_files(config, sample_rate=RATE), config, sample_rate=RATE, seed=seed
    )


def _fingerprint(*folders, **changes):
    config = _config(train=tuple(map(str, folders)), **changes)
    return data.training_examples(config, sample_rate=RATE, seed=0).fingerprint


@pytest.mark.parametrize("synthetic", [True, False])
def test_batches_are_determined_by_the_seed(music, synthetic):
    config = _config(None if synthetic else music)
    first, again, other = _batches(config), _batches(config), _batches(config, seed=1)
    assert all(batch.shape == (4, CROP, 2) and batch.dtype == np.float32 for batch in first)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_saved_position_continues_exactly(music, threads):
    config = _config(music, threads=threads)
    example = data.training_examples(config, sample_rate=RATE, seed=0)
    batches = data.training_batches(example, config)
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    expected = [next(batches) for _ in range(3)]
    resumed = data.training_batches(data.training_examples(config, sample_rate=RATE, seed=0), config)
    resumed.set_state(state)
    np.testing.assert_array_equal([next(resumed) for _ in range(3)], expected)


def test_the_fingerprint_tells_other_music(music, tmp_path, monkeypatch):
    everything = {"validation": (str(_write(tmp_path / "held.wav")),)}
    known = _fingerprint(music, **everything)
    (music / "broken.wav").write_bytes(b"no music")
    moved = music.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    assert _fingerprint(".", **everything) == _fingerprint(moved, **everything) == known
    _write(moved / "0.wav", seconds=1)
    longer = _fingerprint(moved, **everything)
    (moved / "1.wav").rename(moved / "a.wav")
    assert len({known, longer, _fingerprint(moved, **everything)}) == 3
    synthetic = data.training_examples(_config(None), sample_rate=RATE, seed=0)
    assert (synthetic.fingerprint, synthetic.skipped) == ("synthetic", {})


def test_processes_share_the_batch_of_one(music):
    config = _config(music)
    whole = _batches(config)
    parts = [_batches(config, process_index=index, process_count=2) for index in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_a_share_of_the_examples_is_synthetic(music):
    def drawn(**changes):
        example = data.training_examples(_config(**changes), sample_rate=RATE, seed=0)
        return [example.draw(number) for number in range(60)]

    recorded, made, mixed = (
        drawn(train=(str(music),)),
        drawn(),
        drawn(train=(str(music),), synthetic_share=0.3),
    )
    is_made = [np.array_equal(a, b) for a, b in zip(mixed, made, strict=True)]
    is_recorded = [np.array_equal(a, b) for a, b in zip(mixed, recorded, strict=True)]
    assert all(a != b for a, b in zip(is_made, is_recorded, strict=True))
    assert 9 <= sum(is_made) <= 27  # 18 ± 2.5 standard deviations


def test_an_epoch_hears_every_file_as_often_as_crops_fit(music):
    _write(music / "long.wav", 30 * CROP / RATE)
    config = _config(music)
    reader = _reader(config)
    files = data.training_files(config, sample_rate=RATE)
    assert len(reader._items) == sum(len(soundfile.read(file.path)[0]) // CROP for file in files)
    for epoch in range(2):
        np.testing.assert_array_equal(np.sort(reader._order(epoch)), np.arange(len(reader._items)))
    assert not np.array_equal(reader._order(0), reader._order(1))


def test_crops_start_anywhere(music):
    config = _config(music, flip_polarity=False, swap_channels=False)
    audio = np.concatenate(_batches(config, 20))
    starts = np.mod(np.round((audio[:, 0, 0] - audio[:, 0, 1]) * 16 * CROP), 8 * CROP)
    assert len(np.unique(starts)) > 60
    assert starts.min() < CROP
    assert starts.max() > 6 * CROP
    steps = np.diff(audio[:, :, 0], axis=1)
    np.testing.assert_allclose(steps, 1 / (32 * CROP), rtol=1e-2, err_msg="a crop is one piece of the file")


def test_augmentation_negates_swaps_and_scales():
    audio = np.stack([np.linspace(0.1, 0.2, 8), np.linspace(0.3, 0.4, 8)], axis=1).astype(np.float32)
    config = _config(gain_db=(-6.0, 6.0))
    seen = set()
    for seed in range(60):
        result = data.augment(audio, np.random.default_rng(seed), config)
        swapped = abs(result[0, 0]) > abs(result[0, 1])
        gain = (result[:, ::-1] if swapped else result) / audio
        assert np.ptp(gain) < 1e-6, "one gain for both channels"
        assert 10 ** (-6 / 20) - 1e-6 <= abs(gain[0, 0]) <= 10 ** (6 / 20) + 1e-6
        seen.add((bool(swapped), bool(gain[0, 0] < 0)))
    assert len(seen) == 4
    off = _config(flip_polarity=False, swap_channels=False)
    np.testing.assert_array_equal(data.augment(audio, np.random.default_rng(0), off), audio)


@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_other_rates_are_resampled(tmp_path, rate):
    place = np.arange(round(0.5 * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1000 * place)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), rate, subtype="FLOAT")
    audio = _batches(_config(tmp_path, crop_samples=4096), 1)[0]
    spectrum = np.abs(np.fft.rfft(audio[0, :, 0] * np.hanning(4096)))
    assert abs(np.argmax(spectrum) * RATE / 4096 - 1000) < RATE / 4096
    assert abs(np.abs(audio).max() - 0.5) < 0.01, "no edges of the resampler inside the crop"


def test_mono_becomes_stereo(tmp_path):
    _write(tmp_path / "mono.wav", channels=1)
    audio = _batches(_config(tmp_path), 1)[0]
    np.testing.assert_array_equal(audio[..., 0], audio[..., 1])


def test_bad_files_are_skipped_counted_and_named_once(music, caplog):
    broken = music / "broken.wav"
    broken.write_bytes(b"RIFF, or not")
    short = _write(music / "short.wav", CROP / RATE / 2)
    surround = _write(music / "surround.wav", channels=12)
    config = _config(music, validation=(str(music / "0.wav"),))
    reader = _reader(config)
    assert set(reader.skipped) == {broken, short, surround}
    for number in range(2 * len(reader._items)):
        assert reader.draw(number) is not None
    for path in (broken, short, surround):
        assert sum(str(path) in message for message in caplog.messages) == 1


def test_a_file_that_breaks_later_is_left_out(music):
    config = _config(music)
    example = data.training_examples(config, sample_rate=RATE, seed=0)
    gone = data.training_files(config, sample_rate=RATE)[0].path
    gone.write_bytes(b"overwritten while training")
    batches = data.training_batches(example, config)
    assert all(next(batches).shape == (4, CROP, 2) for _ in range(10))


@pytest.mark.parametrize("kind", ["mp3", "flac"])
def test_a_damaged_file_gives_what_it_holds_whatever_was_drawn_before(tmp_path, caplog, monkeypatch, kind):
    path = _write(tmp_path / f"cut.{kind}", 2.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(crops, "_TRIES", 1)
    forwards, backwards = _reader(_config(tmp_path)), _reader(_config(tmp_path))
    numbers = range(20)
    first = {number: forwards.draw(number) for number in numbers}
    again = {number: backwards.draw(number) for number in reversed(numbers)}
    missing = sum(crop is None for crop in first.values())
    assert 0 < missing < 16
    for number in numbers:
        np.testing.assert_array_equal(first[number], again[number])
        assert first[number] is None or first[number].std() > 0.05
    assert list(forwards.skipped) == [path]
    assert sum(str(path) in message for message in caplog.messages) == 2, "once for each reader"


def test_silence_is_passed_over(music):
    silent = music / "silent.wav"
    soundfile.write(silent, np.zeros((100 * CROP, 2)), RATE)
    config = _config(music, silence_db=-60.0)
    audio = np.concatenate(_batches(config, 10))
    assert (np.sqrt(np.mean(audio**2, axis=(1, 2))) > 1e-3).all()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no audio files"),
        (lambda folder: (folder / "noise.wav").write_bytes(b"nothing"), "none of the 1 audio files"),
        (lambda folder: _write(folder / "short.wav", CROP / RATE / 2), "shorter than a crop"),
    ],
)
def test_a_folder_without_usable_audio_is_an_error(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        data.training_examples(_config(tmp_path), sample_rate=RATE, seed=0)
    assert str(tmp_path) in str(caught.value)


def test_nothing_but_silence_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_MOST_REJECTED", 20)
    soundfile.write(tmp_path / "silent.wav", np.zeros((4 * CROP, 2)), RATE)
    with pytest.raises(UserError, match="silence_db"):
        _batches(_config(tmp_path, silence_db=-60.0), 1)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        data.training_examples(_config(tmp_path / "nowhere"), sample_rate=RATE, seed=0)


def test_manifests_are_relative_to_themselves(music):
    manifest = music.parent / "list.txt"
    manifest.write_text("music/1.wav\n\nmusic/2.wav\n")
    config = _config(manifest, validation=(str(music / "5.wav"),))
    assert _paths(data.training_files(config, sample_rate=RATE)) == [music / "1.wav", music / "2.wav"]


def test_lines_of_a_manifest_that_name_no_file_are_skipped(music, caplog):
    manifest = music.parent / "list.txt"
    manifest.write_text("\ufeffmusic/1.wav\n\n  music/gone.wav\nmusic/2.wav\n")
    config = _config(manifest, validation=(str(music / "5.wav"),))
    examples = data.training_examples(config, sample_rate=RATE, seed=0)
    assert examples.skipped == {music / "gone.wav": "no such file"}
    assert sum("gone.wav" in message for message in caplog.messages) == 1
    manifest.write_text("music/gone.wav\n")
    with pytest.raises(UserError, match=r"none of the 1 audio files is usable .*no such file"):
        data.training_examples(config, sample_rate=RATE, seed=0)


def _files(config):
    """Trained on, held out."""
    return [
        set(_paths(files(config, sample_rate=RATE))) for files in (data.training_files, data.validation_files)
    ]


def test_validation_is_held_out(music):
    config = _config(music)
    trained, held = _files(config)
    assert held and trained and not trained & held
    assert trained | held == set(music.iterdir())
    given = _config(music, validation=(str(music / "3.wav"),))
    assert _files(given) == [set(music.iterdir()) - {music / "3.wav"}, {music / "3.wav"}]
    for chosen in (config, given, _config(None)):
        first, again = (data.validation_audio(chosen, sample_rate=RATE, seed=0) for _ in range(2))
        assert first.shape == (8, CROP, 2)
        np.testing.assert_array_equal(first, again)


def _named(*names):
    return [recordings.Recording(Path(name), name) for name in names]


def test_a_new_song_moves_no_other():
    songs = _named(*(f"album {number // 10}/{number % 10}.wav" for number in range(300)))
    held = set(recordings.split(songs[:200], lambda _: True)[1])
    assert 4 <= len(held) <= 20
    trained, more = recordings.split(songs, lambda _: True)
    assert held <= set(more) and set(trained).isdisjoint(more) and len(trained) + len(more) == 300
    assert not set(more) - held & set(songs[:200])


@pytest.mark.parametrize("good", [[0], [1], [0, 1], [2, 3], [0, 1, 2, 3]])
def test_both_sides_get_a_usable_song(good):
    names = sorted((f"{n}.wav" for n in range(400)), key=lambda name: _named(name)[0].rank)
    for songs in (_named(*names[:4]), _named(*names[-4:]), _named(*names[:2], *names[-2:])):
        usable = {songs[number] for number in good}
        trained, held = recordings.split(songs, usable.__contains__)
        assert usable & set(trained) and usable & set(held)
        assert len(good) == 1 or set(trained).isdisjoint(held)
    assert recordings.split(songs, lambda _: False) == (songs, songs)


def test_what_is_held_out_can_be_heard(tmp_path):
    """Here the file that would be held out alone is broken, too short or silent."""
    for number in range(4):
        _write(tmp_path / f"{number}.wav")
    config = _config(tmp_path, silence_db=-60.0)
    (held,) = _files(config)[1]
    held.write_bytes(b"broken")
    (other,) = _files(config)[1] - {held}
    _write(other, CROP / RATE / 2)
    (third,) = _files(config)[1] - {held, other}
    _write(third, level=0.0)
    (last,) = _files(config)[1] - {held, other, third}
    assert len({held, other, third, last}) == 4
    assert data.validation_audio(config, sample_rate=RATE, seed=0).std() > 0.05


def test_validation_files_that_are_no_good_are_skipped(music, tmp_path, caplog):
    (tmp_path / "held" / "broken.wav").parent.mkdir()
    (tmp_path / "held" / "broken.wav").write_bytes(b"no music")
    config = _config(music, validation=(str(tmp_path / "held"),))
    with pytest.raises(UserError, match="none of the 1 audio files is usable"):
        data.validation_audio(config, sample_rate=RATE, seed=0)
    _write(tmp_path / "held" / "good.wav")
    caplog.clear()
    assert len(data.validation_audio(config, sample_rate=RATE, seed=0)) == 8
    assert sum("broken.wav" in message for message in caplog.messages) == 1


def test_validation_that_leaves_nothing_to_train_on_is_an_error(music):
    with pytest.raises(UserError, match=r"data\.validation holds all 6 audio files of data\.train"):
        data.training_examples(_config(music, validation=(str(music),)), sample_rate=RATE, seed=0)


def test_silent_validation_files_are_an_error(music, tmp_path):
    silent = _write(tmp_path / "silent.wav", level=0.0)
    config = _config(music, validation=(str(silent),), silence_db=-60.0)
    with pytest.raises(UserError, match=r"only 0 of 8 crops .*silence_db.*silent\.wav"):
        data.validation_audio(config, sample_rate=RATE, seed=0)


def test_validation_is_not_augmented(music):
    plain, augmented = (
        data.validation_audio(_config(music, gain_db=gain_db), sample_rate=RATE, seed=0)
        for gain_db in ((0.0, 0.0), (20.0, 20.0))
    )
    np.testing.assert_array_equal(plain, augmented)
    assert (plain[:, -1, 0] > plain[:, -1, 1]).all(), "polarity and channels as recorded"


def _write_m4a(path, audio):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def test_m4a_is_trained_on(tmp_path):
    """Pieces of it are those of the whole file: a sine that rises tells where they come from."""
    place = np.arange(3 * RATE) / RATE
    sweep = 0.3 * np.sin(2 * np.pi * (200 + 500 * place) * place).astype(np.float32)
    path = _write_m4a(tmp_path / "sweep.m4a", np.stack([sweep, sweep / 2], axis=1))
    whole, _ = read(path)
    with AudioReader(path) as reader:
        assert abs(reader.announced - 3 * RATE) < 4096
        for start in (100_000, 0, 60_001, 5_000):
            np.testing.assert_allclose(reader.piece(start, 3000), whole[start : start + 3000], atol=0.01)
        assert len(reader.piece(len(whole) - 1000, 3000)) == 1000
    first, again = _batches(_config(tmp_path)), _batches(_config(tmp_path))
    np.testing.assert_array_equal(first, again)
    assert np.std(first) > 0.05
