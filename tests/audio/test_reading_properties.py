"""Any codec, container, rate, length, cut, join and damage: what FFmpeg decodes is read, at its place."""

import numpy as np
import pytest
from coded_audio import CODINGS, decode, encode, music
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import DECODED_MP3

from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.errors import UserError

_SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_JOINED = ("mp3", "mp2", "aac", "flac", "ogg", "opus", "flac in ogg", "ac3")
_TIMED = (
    "m4a",
    "mka",
    "flac",
    "alac",
    "flac in mka",
    "flac in ogg",
    "webm",
)  # formats in which every packet has its place


def reading(path):
    warnings = []
    audio, rate = read(path, tell=warnings.append)
    return audio, rate, warnings


@st.composite
def recordings(draw, names=tuple(CODINGS)):
    name = draw(st.sampled_from(names))
    return (
        name,
        draw(st.integers(9000, 60_000)),
        draw(st.sampled_from((1, 2))),
        draw(st.sampled_from(CODINGS[name].rates)),
    )


def made(folder, recording):
    name, samples, channels, rate = recording
    path = folder / f"a.{CODINGS[name].ending}"
    audio = music(samples, channels, rate)
    encode(path, CODINGS[name], audio, rate)
    return path, audio, rate


def lengths_agree(path, ours, theirs):
    """Older FFmpeg leaves the padding of an MP4's edit list, and all count Vorbis of one page wrongly."""
    return abs(ours - theirs) <= {".m4a": 2048, ".mp4": 2048, ".ogg": 512}.get(path.suffix, 0)


@pytest.mark.parametrize("name", CODINGS)
def test_every_coding_is_read_as_ffmpeg_decodes_it(tmp_path, name):
    coding = CODINGS[name]
    for samples, channels, rate in ((30_001, 2, coding.rates[0]), (9_600, 1, coding.rates[-1])):
        path, audio, rate = made(tmp_path, (name, samples, channels, rate))
        result, given_rate, warnings = reading(path)
        expected = decode(path)
        assert given_rate == rate and result.shape[1] == channels and warnings == []
        length = min(len(result), len(expected))
        assert lengths_agree(path, len(result), len(expected))
        np.testing.assert_allclose(result[:length], expected[:length], rtol=0, atol=1e-6)
        if coding.lossless:
            assert 0 <= len(result) - samples <= (3 if name == "w64" else 0)  # W64 is filled up to 8 bytes
            np.testing.assert_allclose(result[:samples], audio, rtol=0, atol=2**-14)
        elif coding.declares:  # no priming before it: it lies where it was
            assert np.corrcoef(result[:samples, 0], audio[: len(result), 0])[0, 1] > 0.9
            assert abs(len(result) - samples) < 1024


@_SETTINGS
@given(recordings())
def test_any_length_is_read_as_ffmpeg_decodes_it(tmp_path_factory, recording):
    path, _, rate = made(tmp_path_factory.mktemp("any"), recording)
    result, given_rate, warnings = reading(path)
    expected = decode(path)
    assert given_rate == rate and warnings == []
    length = min(len(result), len(expected))
    assert lengths_agree(path, len(result), len(expected))
    if recording[0] in ("ogg", "opus", "m4a", "mp4", "mp3"):
        assert abs(len(result) - recording[1]) <= rate // 1000  # where a container counts milliseconds
    np.testing.assert_allclose(result[:length], expected[:length], rtol=0, atol=1e-6)
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(1111))
    assert all(len(block) == 1111 for block in blocks[:-1])
    np.testing.assert_array_equal(np.concatenate(blocks), result)


@_SETTINGS
@given(recordings(), st.floats(0.2, 0.98))
def test_what_is_left_of_a_cut_file_is_its_beginning(tmp_path_factory, recording, share):
    path, _, _ = made(tmp_path_factory.mktemp("cut"), recording)
    whole, rate, _ = reading(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        result, _, warnings = reading(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return
    assert len(result) <= len(whole)
    # The last packets may be incomplete, and what they hold is then made up.
    safe = max(0, len(result) - 8192)
    np.testing.assert_allclose(result[:safe], whole[:safe], rtol=0, atol=DECODED_MP3)
    # The others have no header that could announce anything, or FFmpeg corrects it by what is there.
    announces = recording[0] not in ("mp2", "aac", "ac3", "ts", "avi", "wma", "ogg", "opus", "flac in ogg")
    if announces and len(whole) - len(result) > rate // 4:
        assert len(warnings) == 1 and "cut short" in warnings[0], warnings


@_SETTINGS
@given(recordings(_JOINED), recordings(_JOINED))
def test_joined_streams_are_one(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("joined")
    second = (first[0], second[1], *first[2:])  # of the same form
    path, _, rate = made(folder, first)
    parts = [(path.read_bytes(), read(path)[0])]
    path, _, _ = made(folder, second)
    parts.append((path.read_bytes(), read(path)[0]))
    path.write_bytes(parts[0][0] + parts[1][0])
    result, given_rate, _ = reading(path)
    # Of what follows, FFmpeg does not take priming off, nor padding of what precedes.
    expected = sum(len(audio) for _, audio in parts)
    assert given_rate == rate and -1 <= len(result) - expected < 4 * 1152 + 1000
    certain = len(parts[0][1]) - 4096
    if certain > 0:
        np.testing.assert_allclose(result[:certain], parts[0][1][:certain], rtol=0, atol=DECODED_MP3)


@_SETTINGS
@given(recordings(_TIMED), st.floats(0.3, 0.7), st.integers(100, 1500), st.integers(0, 2**32 - 1))
def test_what_follows_damage_is_at_its_place(tmp_path_factory, recording, place, size, seed):
    name, samples, channels, rate = recording
    path, _, _ = made(tmp_path_factory.mktemp("damage"), (name, samples + 60_000, channels, rate))
    whole, _, _ = reading(path)
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + size] = np.random.default_rng(seed).bytes(size)
    path.write_bytes(content)
    result, _, warnings = reading(path)
    assert len(result) <= len(whole) + 1024
    length = min(len(result), len(whole)) // 1024 * 1024
    assert length > 0.2 * len(whole)
    blocks = (result[:length] - whole[:length]).reshape(-1, 1024, channels)
    wrong = np.sqrt(np.mean(blocks**2, axis=(1, 2))) > 0.02
    silent = np.abs(result[:length]).reshape(-1, 1024, channels).max(axis=(1, 2)) < 1e-3
    # Silence stands for what is lost; of what is not, only the packets at the damage differ.
    assert np.sum(wrong & ~silent) <= 10
    if np.any(silent) or len(result) < len(whole) - rate // 4:
        assert len(warnings) == 1 and "lost" in warnings[0]


@_SETTINGS
@given(recordings(), st.floats(0, 1))
def test_pieces_come_from_their_place(tmp_path_factory, recording, place):
    path, _, _ = made(tmp_path_factory.mktemp("piece"), recording)
    whole, _, _ = reading(path)
    size = 1500
    start = int(place * max(0, len(whole) - size - 1))
    with AudioReader(path) as reader:
        piece = reader.piece(start, size)
        assert abs(reader.count() - len(whole)) <= max(3000, 0.05 * len(whole))
    assert len(piece) == size or start + size > len(whole) - 3000
    if CODINGS[recording[0]].lossless:
        np.testing.assert_allclose(piece, whole[start : start + size], rtol=0, atol=1e-6)
