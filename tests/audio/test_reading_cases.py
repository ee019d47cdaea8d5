"""Odd files as people have them: all that is in them is read, and what is lost is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import CASES

from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets.records import STATISTICS

pytestmark = pytest.mark.usefixtures("quick_compilation")


# Rate, samples as FFmpeg decodes them, channels, and what the one warning says; "" where there is none.
EXPECTED = {
    "a.m4a": (44_100, 44_100, 2, ""),  # priming and padding, as its edit list says, are left out
    "a.mka": (44_100, 45_056, 2, ""),  # without the priming that it declares, which FFmpeg before 6 kept
    "a.mp2": (44_100, 44_928, 2, ""),
    "cat.mp3": (
        44_100,
        91_055,
        2,
        "longer than its header says; 1.00 s announced, 2.06 s read, nothing lost",
    ),
    "chained.ogg": (44_100, 88_328, 2, ""),
    "cut.webm": (48_000, 13_128, 2, "cut short; 0.93 s announced, 0.27 s read, 0.65 s lost"),
    "cut_faststart.m4a": (
        44_100,
        17_408,
        2,
        "cut short, 1 damaged packet; 1.00 s announced, 0.39 s read, 0.61",
    ),
    "ffmpeg_pipe.flac": (44_100, 44_100, 2, ""),
    "garbage_mid.aac": (
        44_100,
        45_056,
        2,
        "1 damaged packet; no length announced, 1.02 s read, 0.04",
    ),
    "latin1_tag.m4a": (44_100, 44_100, 2, ""),
    "mono_then_stereo.aac": (44_100, 92_160, 1, ""),
    "mp3_in_riff.wav": (44_100, 46_080, 2, ""),
    "rate_change.mp3": (44_100, 46_080 + round(44_928 * 441 / 480), 2, ""),
    "vbr_loud_first_noxing.mp3": (44_100, 442_368, 2, ""),
    "xing_half.mp3": (
        44_100,
        44_100,
        2,
        "longer than its header says; 0.48 s announced, 1.00 s read, nothing",
    ),
}


def reading(path):
    warnings = []
    audio, rate = read(path, tell=warnings.append)
    return audio, rate, warnings


@pytest.mark.parametrize("name", EXPECTED)
def test_all_that_is_there_is_read(name):
    rate, samples, channels, warning = EXPECTED[name]
    audio, given, warnings = reading(CASES / name)
    assert (given, audio.shape) == (rate, (samples, channels))
    assert len(warnings) == bool(warning)
    if warning:
        assert warnings[0].startswith(f"{CASES / name}: {warning}")
        with pytest.raises(UserError, match="lost"):
            read(CASES / name, strict=True)
    assert np.std(audio) > 0.01


def test_content_decides_and_not_the_name(tmp_path):
    for source, name in (
        ("a.m4a", "b.mp3"),
        ("a.mp2", "b.wav"),
        ("chained.ogg", "b.flac"),
        ("a.m4a", "none"),
    ):
        shutil.copy(CASES / source, tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name)[0], read(CASES / source)[0])


def test_a_codec_that_nobody_knows_is_named():
    with pytest.raises(UserError, match=r"unknown_codec\.mkv: FFmpeg has no decoder for its audio"):
        read(CASES / "unknown_codec.mkv")


def test_what_looks_like_mpeg_and_is_none_is_refused_quietly(tmp_path, capfd):
    (tmp_path / "a.mp3").write_bytes(b"\xff\xfb\x90\x64" + np.random.default_rng(0).bytes(300))
    with pytest.raises(UserError, match=r"a\.mp3: "):
        read(tmp_path / "a.mp3")
    assert capfd.readouterr().err == ""


def test_a_wrong_frame_count_loses_nothing_inside():
    """The padding that a header puts into the middle of the file is left out at the end."""
    audio = read(CASES / "xing_half.mp3")[0]
    middle = audio[len(audio) // 2 - 2000 : len(audio) // 2 + 2000, 0]
    steps = np.abs(np.diff(middle))
    assert steps.max() < 4 * np.percentile(steps, 99)


@pytest.mark.parametrize(
    ("ending", "size"), [("wav", 0), ("wav", 2**32 - 1), ("aiff", 0), ("aiff", 2**32 - 1), ("au", 2**32 - 1)]
)
def test_a_recorder_that_crashed(tmp_path, ending, size):
    audio = 0.1 * np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32)
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, audio, 44_100, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    marks = {"wav": (b"data", "little"), "aiff": (b"SSND", "big"), "au": (b".snd", "big")}
    mark, order = marks[ending]
    place = content.find(mark) + (8 if ending == "au" else 4)
    content[place : place + 4] = size.to_bytes(4, order)
    path.write_bytes(content)
    result, _, warnings = reading(path)
    assert abs(len(result) - len(audio)) <= 2  # AIFF has eight bytes before its samples
    assert len(warnings) == 1 and "its header does not say how long it is" in warnings[0]


@pytest.mark.parametrize("ending", ["wav", "aiff", "caf", "w64", "au", "rf64"])
def test_cut_and_joined_files_without_compression(tmp_path, ending):
    audio = 0.1 * np.random.default_rng(0).standard_normal((30_000, 2)).astype(np.float32)
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, audio, 44_100, subtype="PCM_16", format=ending.upper())
    whole = path.read_bytes()
    expected = read(path)[0]
    assert reading(path)[2] == []
    path.write_bytes(whole[: len(whole) // 2])
    result, _, warnings = reading(path)
    assert 14_000 < len(result) < 15_100
    np.testing.assert_array_equal(result, expected[: len(result)])
    assert len(warnings) == 1 and "cut short; 0.68 s announced" in warnings[0]
    path.write_bytes(whole + whole)
    result, _, warnings = reading(path)
    np.testing.assert_array_equal(result[:30_000], expected)
    assert len(result) > 59_000 or (
        len(warnings) == 1 and "after its announced end are not read" in warnings[0]
    )


def test_joined_flacs_are_one(tmp_path):
    parts = [
        0.1 * np.random.default_rng(n).standard_normal((20_000 + n, 2)).astype(np.float32) for n in (0, 1)
    ]
    for number, part in enumerate(parts):
        soundfile.write(tmp_path / f"{number}.flac", part, 44_100)
    joined = tmp_path / "joined.flac"
    joined.write_bytes((tmp_path / "0.flac").read_bytes() + (tmp_path / "1.flac").read_bytes())
    result, _, warnings = reading(joined)
    expected = [read(tmp_path / f"{number}.flac")[0] for number in (0, 1)]
    np.testing.assert_array_equal(result, np.concatenate(expected))
    assert warnings == []


def test_more_than_two_channels_are_mixed_down(tmp_path, caplog):
    audio = np.zeros((100, 6), np.float32)
    audio[np.arange(6), np.arange(6)] = 0.5  # one loudspeaker after the other
    soundfile.write(tmp_path / "a.wav", audio, 8000, subtype="FLOAT")
    result = read(tmp_path / "a.wav")[0]
    half = 0.5 * np.sqrt(0.5)
    expected = [(0.5, 0), (0, 0.5), (half, half), (0, 0), (half, 0), (0, half)]  # L R C LFE Ls Rs, BS.775
    np.testing.assert_allclose(result[:6], expected, atol=1e-7)
    assert result.shape == (100, 2) and np.all(result[6:] == 0)
    with pytest.raises(UserError, match=r"a\.wav: 6 channels; the model takes 2"):
        read(tmp_path / "a.wav", channels="strict")


def test_a_folder_of_all_of_them(earvae, small_checkpoint, tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(CASES, root)
    soundfile.write(root / "good.wav", 0.1 * np.ones((900, 2)), 8000)
    status, lines = earvae("encode", root, "--checkpoint", small_checkpoint, "--output-dir", out)
    assert status == 1 and not any("Traceback" in line for line in lines)
    assert {path.name for path in out.iterdir()} == {
        f"{Path(name).stem}.npz" for name in (*EXPECTED, "good.wav") if Path(name).stem != "a"
    } | {"a.m4a.npz", "a.mka.npz", "a.mp2.npz", STATISTICS}
    assert sum("error" in line and "unknown_codec.mkv:" in line for line in lines) == 1
    assert "1 failed" in lines[-1]
    for name, (_, _, _, warning) in EXPECTED.items():
        assert sum(f"{name}: " in line and "lost" in line for line in lines) == bool(warning), name


def test_latents_that_were_joined_or_lack_a_part(earvae, tmp_path):
    out = tmp_path / "out"
    latents = [without_model(CASES / name, tmp_path) for name in ("concat.npz", "mean_only.npz")]
    call = ("decode", *latents, "--output-dir", out)
    status, lines = earvae(*call)
    assert status == 0, lines
    assert len(read(out / "concat.wav")[0]) == 88 * 1024  # all of them
    assert sum("holds 88 latents" in line and "all are decoded" in line for line in lines) == 1
    assert len(read(out / "mean_only.wav")[0]) == 44_100
    status, lines = earvae(*call, "--latent", "sample", "--overwrite")
    assert status == 1 and any("mean_only.npz: there is no std to sample with" in line for line in lines)


def without_model(path, folder):
    """A copy of a latent file in `folder` that names no model: the bundled one changes, these files stay."""
    with np.load(path) as file:
        content = dict(file)
    metadata = json.loads(str(content["metadata"])) | {"model": ""}
    np.savez(folder / path.name, **content | {"metadata": np.asarray(json.dumps(metadata))})
    return folder / path.name


@pytest.mark.parametrize(
    "name", ["garbage_mid.aac", "vbr_loud_first_noxing.mp3", "chained.ogg", "ffmpeg_pipe.flac"]
)
def test_pieces_come_from_the_whole_of_it(name):
    whole, rate = read(CASES / name)
    with AudioReader(CASES / name) as reader:
        count = reader.count()
        pieces = [reader.piece(start, 2000) for start in (0, count // 3, count - 4000)]
    assert all(len(piece) == 2000 for piece in pieces)
    assert count > rate // 2 and np.abs(pieces[0] - whole[:2000]).max() < 0.05
