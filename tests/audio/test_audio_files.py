"""Audio files: every format in, exact samples out, one line for what cannot be read."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tolerances import DECODED_MP3

from earvae_jax.audio import writer
from earvae_jax.audio.channels import to_channels
from earvae_jax.audio.ffmpeg_container import opening_fault
from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.audio.search import find_audio
from earvae_jax.audio.writer import write, writing
from earvae_jax.errors import UserError


def noise(samples, channels=2):
    return 0.1 * np.random.default_rng(0).standard_normal((samples, channels), np.float32)


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_bit_exact_and_does_not_clip(tmp_path, channels):
    audio = 30 * noise(1001, channels)
    write(tmp_path / "a.wav", audio, 44_100)
    result, rate = read(tmp_path / "a.wav")
    np.testing.assert_array_equal(result, audio)
    assert rate == 44_100 and soundfile.info(tmp_path / "a.wav").subtype == "FLOAT"


def test_flac_has_24_bits_and_clips_at_full_scale(tmp_path):
    audio = np.clip(8 * noise(1001), -3, 3)
    write(tmp_path / "a.flac", audio, 48_000, format="flac")
    np.testing.assert_allclose(read(tmp_path / "a.flac")[0], np.clip(audio, -1, 1), atol=2**-23)
    assert np.abs(audio).max() > 1


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("a.wav", 8000),
        ("a.wav", 192_000),
        ("a.flac", 96_000),
        ("a.ogg", 44_100),
        ("a.mp3", 48_000),
        ("a.aiff", 22_050),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_are_read_to_their_end(tmp_path, name, rate, channels):
    audio = noise(rate // 2, channels)
    soundfile.write(tmp_path / name, audio, rate)
    result, given = read(tmp_path / name)
    assert given == rate and result.shape == audio.shape and result.dtype == np.float32
    with AudioReader(tmp_path / name) as reader:
        blocks = list(reader.blocks(1000))
    assert all(len(block) == 1000 for block in blocks[:-1])
    np.testing.assert_allclose(np.concatenate(blocks), result, rtol=0, atol=DECODED_MP3)


def test_a_long_wav_becomes_rf64(tmp_path):
    with writing(tmp_path / "a.wav", sample_rate=48_000, channels=2, samples=2**29) as file:
        assert file.format == "RF64"
        file.write(noise(10))
    assert len(read(tmp_path / "a.wav")[0]) == 10


def test_truncated_files_of_the_lossy_kind_give_what_is_there(tmp_path, caplog):
    soundfile.write(tmp_path / "a.mp3", noise(100_000), 44_100)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    audio, _ = read(tmp_path / "a.mp3")
    assert 30_000 < len(audio) < 70_000
    assert "cut short" in caplog.text


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.wav"
    assert "no such file" in refusal(read, path)
    assert "is a folder" in refusal(read, tmp_path)
    for content, reason in ((b"", "is empty"), (b"text", "not readable"), (b"RIFF", "not readable")):
        path.write_bytes(content)
        assert str(path) in refusal(read, path) and reason in refusal(read, path)
    write(path, noise(0), 8000)
    assert "holds no samples" in refusal(read, path)
    broken = noise(100)
    broken[40, 1], broken[41, 0] = np.inf, np.nan
    write(path, broken, 8000)
    assert "2 samples are NaN or infinite, the first at sample 40" in refusal(read, path)


def test_m4a_is_read_through_ffmpeg(tmp_path):
    import av

    path, audio = tmp_path / "a.m4a", noise(44_100)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T), format="fltp", layout="stereo")
        frame.sample_rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels) == (44_100, 2)
        blocks = list(reader.blocks(1000))
    # AAC works in frames of 1024 and begins with silence of one or two.
    assert 44_100 <= sum(map(len, blocks)) < 44_100 + 4 * 1024
    assert all(len(block) == 1000 for block in blocks[:-1])
    assert 0.05 < np.concatenate(blocks).std() < 0.15
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refusal(read, path)
    path.write_text("no audio")
    assert "not readable as audio" in refusal(read, path)


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(write, tmp_path / "file" / "a.wav", noise(10), 8000)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    real = soundfile.SoundFile

    def on_a_full_disk(path, *arguments, **options):
        Path(os.fsdecode(path)).symlink_to("/dev/full")
        return real(path, *arguments, **options)

    monkeypatch.setattr(writer.soundfile, "SoundFile", on_a_full_disk)
    message = refusal(write, tmp_path / "a.wav", noise(100_000), 8000)
    assert "a.wav: cannot be written" in message and "no space left" in message.lower()
    assert list(tmp_path.iterdir()) == []


def test_folders_are_searched_in_a_fixed_order(tmp_path):
    for name in ("b.wav", "sub/a.FLAC", "a.m4a", ".hidden.wav", ".git/x.wav", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = [str(relative) for _, relative in find_audio([tmp_path, tmp_path / "b.wav"])]
    assert found == ["a.m4a", "b.wav", "sub/a.FLAC"]
    assert [str(relative) for _, relative in find_audio([tmp_path / "note.txt"])] == ["note.txt"]
    assert "no such file or folder" in refusal(find_audio, [tmp_path / "absent"])
    (tmp_path / "none").mkdir()
    assert "no audio files in" in refusal(find_audio, [tmp_path / "none"])


def test_channels():
    mono, stereo = noise(5, 1), noise(5, 2)
    np.testing.assert_array_equal(to_channels(mono, 2), np.repeat(mono, 2, axis=1))
    np.testing.assert_array_equal(to_channels(stereo, 1), stereo.mean(axis=1, keepdims=True))
    assert to_channels(stereo, 2) is stereo
    assert "6 channels; the model takes 2" in refusal(to_channels, noise(5, 6), 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("missing", [1, 10, 5000])
def test_a_disk_that_fills_up_at_the_end_leaves_nothing(tmp_path, format, missing):
    import resource

    audio = 0.1 * np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32)
    whole, cut = tmp_path / f"whole.{format}", tmp_path / f"cut.{format}"
    write(whole, audio, 44_100, format=format)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size - missing, before[1]))
    try:
        with pytest.raises(UserError, match=r"cut\..*cannot be written"):
            write(cut, audio, 44_100, format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]


def test_many_threads_leave_the_log_of_ffmpeg_as_it_was(tmp_path):
    """Its level is one for all threads, and each file that cannot be opened sets it for a moment."""
    import av

    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    level = av.logging.get_level()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(opening_fault, [path] * 200))
    assert av.logging.get_level() == level
    assert set(told) == {told[0]}
