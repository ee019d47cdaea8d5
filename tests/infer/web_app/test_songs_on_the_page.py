"""What the page computes is what the codec computes, and what it refuses it refuses in one line."""

import coded_audio
import numpy as np
import pytest
import soundfile

from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.infer import Codec
from earvae_jax.infer.evaluation import pictures
from earvae_jax.infer.latents import read_latents
from earvae_jax.infer.web_app.interpolation import SECONDS, Interpolation, between
from earvae_jax.infer.web_app.jobs import Cancelled
from earvae_jax.infer.web_app.limits import Limits, clock, described
from earvae_jax.infer.web_app.live_view import Strip, live_view, told
from earvae_jax.infer.web_app.models import BUNDLED, Models
from earvae_jax.infer.web_app.reconstruction import Reconstruction, Settings
from earvae_jax.infer.web_app.visitors import Visitor

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 44_100


@pytest.fixture(scope="module")
def models(small_checkpoint) -> Models:
    return Models(str(small_checkpoint))


@pytest.fixture(scope="module")
def codec(small_checkpoint) -> Codec:
    return Codec.load(small_checkpoint)


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "song.mp3"
    coded_audio.encode(path, coded_audio.CODINGS["mp3"], coded_audio.music(RATE, 2, RATE), RATE)
    return path


@pytest.fixture
def visitor(tmp_path) -> Visitor:
    (tmp_path / "visitor").mkdir()
    return Visitor(tmp_path / "visitor")


def reconstruction(visitor, song, models, limits=Limits(), **settings) -> Reconstruction:  # noqa: B008 - frozen
    return Reconstruction(visitor, song, Settings(models.first, **settings), models, limits)


@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_a_song_is_reconstructed_as_by_the_codec(latent, visitor, song, models, codec):
    job = reconstruction(visitor, song, models, latent=latent, seed=3)
    job.run()
    audio, rate = read(job.audio)
    assert rate == RATE
    np.testing.assert_array_equal(audio, codec.reconstruct(song, latent=latent, seed=3))
    latents = read_latents(job.latents)
    np.testing.assert_array_equal(latents.mean, codec.encode(song).mean)
    np.testing.assert_allclose(codec.decode(job.latents).shape, audio.shape)
    assert job.report.count('<article class="pair"') == 1
    assert f"float32, {'mean' if latent == 'mean' else 'sample, seed 3'}" in job.report
    for strip in job._strips:  # both are drawn to the end
        assert strip._columns == strip._level.shape[1]
        assert np.isfinite(strip._level).all() and np.isfinite(strip._most).all()


def test_progress_comes_from_the_windows(visitor, song, models, monkeypatch):
    told_of: list[tuple[str, float | None]] = []
    job = reconstruction(visitor, song, models)
    at = job.at
    monkeypatch.setattr(job, "at", lambda *words: (told_of.append((*words, None)[:2]), at(*words)))
    job.run()
    for stage in ("Encoding", "Decoding"):
        shares = [share for said, share in told_of if said == stage]
        assert len(shares) >= 3 and shares == sorted(shares)
        assert shares[-1] == pytest.approx(1, abs=0.05)
    assert [stage for stage, share in told_of if share is None] == [
        "Loading the model",
        "Measuring",
        "Drawing the report",
    ]


@pytest.mark.parametrize("half", ["Encoding", "Decoding"])
def test_a_closed_tab_ends_the_computation_between_two_windows(half, visitor, song, models, monkeypatch):
    job = reconstruction(visitor, song, models)
    at = job.at
    calls: list[str] = []

    def leave(stage, share=None):
        calls.append(stage)
        if calls.count(half) == 2:
            visitor.gone.set()
        at(stage, share)

    monkeypatch.setattr(job, "at", leave)
    with pytest.raises(Cancelled):
        job.run()
    assert calls[-1] == half
    assert not job.audio.exists()


def test_the_next_song_replaces_the_one_before(visitor, song, models, tmp_path):
    other = tmp_path / "other.wav"
    write(other, coded_audio.music(RATE, 2, RATE), RATE)
    for path in (song, other):
        reconstruction(visitor, path, models).run()
    assert sorted(path.name for path in visitor.folder.iterdir()) == ["other.npz", "other_vae_rec.wav"]


def test_what_is_dropped_is_described(song):
    assert described(song, Limits()) == "song.mp3: 0:01, stereo, 44100 Hz"
    assert clock(7200) == "2:00:00"


def refused(path, limits=Limits()) -> str:  # noqa: B008 - frozen
    with pytest.raises(UserError) as raised:
        described(path, limits)
    message = str(raised.value)
    assert message.startswith(f"{path.name}: ") and "\n" not in message
    return message


def test_wrong_files_are_refused_in_one_line(tmp_path):
    wrong, empty = tmp_path / "wrong.pdf", tmp_path / "empty.mp3"
    wrong.write_bytes(b"%PDF-1.4 nothing\n" * 50)
    empty.write_bytes(b"")
    assert "not readable as audio" in refused(wrong)
    assert "is empty" in refused(empty)
    assert refused(tmp_path / "gone.mp3").endswith("no such file")
    large = Limits(megabytes=0.5)
    wrong.write_bytes(b"0" * (1 << 20))
    assert "1.0 MB; this page takes files up to 0.5 MB" in refused(wrong, large)


def test_two_hours_are_refused_before_anything_is_computed(tmp_path):
    path = tmp_path / "two hours.flac"
    soundfile.write(path, np.zeros(7200 * 8000, np.int16), 8000)
    assert "2:00:00; this page takes songs up to 10:00: drop a shorter piece" in refused(path)


def test_a_header_that_lies_about_the_length_does_not_help(tmp_path, visitor, models):
    """The first frame of an MP3 says how many follow; here six times as many do."""
    path = tmp_path / "song.mp3"
    coded_audio.encode(path, coded_audio.CODINGS["mp3"], coded_audio.music(RATE, 2, RATE), RATE)
    path.write_bytes(path.read_bytes() * 6)
    limits = Limits(seconds=3)
    described(path, limits)
    job = reconstruction(visitor, path, models, limits)
    with pytest.raises(UserError, match=r"^song.mp3: longer than 0:03; this page takes songs up to 0:03"):
        job.run()
    assert not list(visitor.folder.iterdir())


def test_the_page_offers_names_and_takes_no_paths(models, small_checkpoint):
    labels = {name: label for label, name in models.choices}
    assert models.first == "given" and labels["given"] == small_checkpoint.name
    assert {BUNDLED, "ear-vae-44k", "ace-step-1.5"} <= labels.keys()
    assert "fetched" in models.stage("ear-vae-44k") and "fetched" not in models.stage("given")
    for name, dtype in ((str(small_checkpoint), "float32"), ("given", "float8")):
        with pytest.raises(UserError, match="offers no such"):
            models.codec(name, dtype)
    assert models.codec("given", "float32") is models.codec("given", "float32")


def test_the_ends_of_the_line_are_the_songs(visitor, song, models, codec, tmp_path):
    other = tmp_path / "other.wav"
    write(other, coded_audio.music(RATE // 2, 2, RATE, seed=1), RATE)
    settings = Settings(models.first)
    latents = [codec.encode(path).mean for path in (song, other)]
    count = min(map(len, latents))
    for weight in (0, 0.25):
        job = Interpolation(visitor, (song, other), weight, settings, models, Limits())
        job.run()
        audio, rate = read(job.audio)
        assert rate == codec.sample_rate
        expected = codec.decode((1 - weight) * latents[0][:count] + weight * latents[1][:count])
        np.testing.assert_allclose(audio, expected, atol=1e-5)
        assert job.view().count("<figure>") == 3
    assert len(visitor.latents) == 2
    assert [path.name for path in visitor.folder.iterdir()] == ["between_25.wav"]


def test_only_the_beginning_of_a_long_song_is_interpolated(visitor, models, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("earvae_jax.infer.web_app.interpolation.SECONDS", 0.5)
    song = tmp_path / "song.wav"
    write(song, coded_audio.music(RATE, 2, RATE), RATE)
    job = Interpolation(visitor, (song, song), 0.5, Settings(models.first), models, Limits())
    job.run()
    assert len(read(job.audio)[0]) == pytest.approx(0.5 * codec.sample_rate, rel=0.01)
    assert SECONDS > 1


def test_between_takes_the_shorter_length():
    one, other = np.zeros((3, 2)), np.ones((5, 2))
    np.testing.assert_array_equal(between(one, other, 0.25), np.full((3, 2), 0.25, np.float32))


@pytest.mark.parametrize("size", [700, 4096, 30_000])
def test_a_strip_does_not_depend_on_the_blocks(size):
    audio = coded_audio.music(60_000, 2, RATE)
    whole, parts = Strip("whole", len(audio), RATE), Strip("parts", len(audio), RATE)
    whole.add(audio)
    for start in range(0, len(audio), size):
        parts.add(audio[start : start + size])
    for strip in (whole, parts):
        strip.end()
    np.testing.assert_allclose(whole._level, parts._level, atol=0.01)
    np.testing.assert_array_equal(whole._most, parts._most)
    padded = np.pad(audio, ((pictures.FRAME // 2, pictures.FRAME // 2), (0, 0)))
    expected = pictures.decibels(pictures.log_frequency_power(padded, whole._centres, RATE))
    np.testing.assert_allclose(whole._level, expected, atol=0.01)


def test_a_strip_of_more_or_less_than_announced():
    audio = coded_audio.music(60_000, 2, RATE)
    for samples in (30_000, 90_000, 0):
        strip = Strip("song", samples, RATE)
        strip.add(audio)
        strip.end()
        assert strip.html().count("<img") == 1


def test_names_are_text():
    hostile = "<img src=x onerror=alert(1)>"
    assert "<img src=x" not in told(hostile) + live_view([Strip(hostile, 100, RATE)], hostile, 0.5)
