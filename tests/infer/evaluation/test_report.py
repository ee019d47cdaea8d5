"""The report: what it contains, and how it behaves in a real browser."""

import base64
import io
import re
import time

import browser
import numpy as np
import pytest
import soundfile

from earvae_jax.errors import UserError
from earvae_jax.infer.evaluation import report
from earvae_jax.infer.evaluation.charts import band_means, frequency_place
from earvae_jax.infer.evaluation.evaluate import RATE, Evaluation, evaluate_model, read_pair
from earvae_jax.infer.evaluation.pairs import find_models
from earvae_jax.infer.evaluation.pictures import spectrograms, stereo_field
from earvae_jax.infer.evaluation.report_file import loudest_stretch

pytestmark = pytest.mark.usefixtures("quick_compilation")

HOSTILE = "<img src=x onerror=alert(1)> & {{pairs}} “quoted”"


def music(seed: int, seconds: float = 3.0) -> np.ndarray:
    """A stereo chord with noise, different for each seed."""
    random = np.random.default_rng(seed)
    instants = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hz * instants + phase) for hz, phase in random.uniform(100, 2000, (4, 2)))
    return 0.1 * np.stack([chord, 0.7 * chord], axis=1) + 0.01 * random.standard_normal((len(instants), 2))


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    folder = tmp_path_factory.mktemp("pairs")
    for seed, name in enumerate(("first", HOSTILE.replace("/", ""), "third")):
        soundfile.write(folder / f"{name}.wav", music(seed), RATE)
        soundfile.write(folder / f"{name}_vae_rec.wav", music(seed) + (seed + 1) * 0.01 * music(9), RATE)
    soundfile.write(folder / "alone.wav", music(0), RATE)
    (model,) = find_models(folder)
    return evaluate_model(model)


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    return report.write_report(evaluation, tmp_path_factory.mktemp("report"), files=2, excerpt_seconds=2.0)


@pytest.fixture(scope="module")
def chromium(page, tmp_path_factory):
    """The page in a browser at desktop width."""
    reason = browser.missing()
    if reason:
        pytest.skip(f"the report is looked at in a browser, and {reason}")
    with browser.browser(tmp_path_factory.mktemp("profile")) as session:
        session.window(1200)
        session.open(page)
        yield session


def state(chromium, selector: str = "#file-1") -> tuple[str, str, float]:
    data = f"const data = document.querySelector('{selector}').dataset;"
    return tuple(chromium.run(data + "return [data.state, data.side, Number(data.position)]"))


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_table_has_every_file_and_the_published_rows(page, evaluation):
    text = page.read_text()
    assert text.count('<tr class="published">') == 2
    assert text.count('<tr class="mean">') == 1
    files = re.search(r'<tbody class="files">(.*?)</tbody>', text, re.DOTALL).group(1)
    assert files.count("<tr") == 3
    for result in evaluation.results:
        assert f">{result.metrics.values['si_sdr']:.2f}<" in files
    assert "alone.wav" in text
    assert "has no reconstruction" in text


def test_the_worst_files_are_heard_and_seen(page, evaluation):
    text = page.read_text()
    assert text.count('<article class="pair"') == 2
    assert re.findall(r"<h2>(.*?)</h2>", text)[1:] == [
        "third",
        "&lt;img src=x onerror=alert(1)&gt; &amp; {{pairs}} “quoted”",
    ]
    assert "the 2 with the lowest SI-SDR can be heard" in text


def test_names_are_text_and_nothing_is_loaded(page):
    text = page.read_text()
    assert "<img src=x" not in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!data:)", text)
    assert "default-src 'none'" in text


def test_audio_inside_is_the_excerpt_without_loss(page, evaluation):
    worst = max(evaluation.results, key=lambda result: -result.metrics.values["si_sdr"])
    audio = read_pair(worst.pair)
    start, stop = loudest_stretch(audio.original, 2 * RATE)
    encoded = re.findall(r'data-audio="(\w+)">([^<]*)<', page.read_text())[:2]
    for (side, text), expected in zip(encoded, (audio.original, audio.reconstruction), strict=True):
        decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
        assert rate == RATE
        np.testing.assert_allclose(decoded, expected[start:stop], atol=1e-4, err_msg=side)


def test_loudest_stretch():
    audio = np.zeros((3 * RATE, 1))
    audio[2 * RATE : 2 * RATE + 1000] = 1
    start, stop = loudest_stretch(audio, RATE)
    assert stop - start == RATE
    assert start <= 2 * RATE
    assert stop >= 2 * RATE + 1000
    assert loudest_stretch(audio, 4 * RATE) == (0, 3 * RATE)


def test_a_tone_stands_at_its_frequency_in_the_spectrogram():
    instants = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 1000 * instants)[:, None]
    pictures = spectrograms(tone, 0.5 * tone, RATE)
    assert pictures.loudest == pytest.approx(-6, abs=3)  # the row stands between two bins
    pixels = decode_png(pictures.original)
    row = np.argmax(pixels[:, pixels.shape[1] // 2])
    assert 1 - row / len(pixels) == pytest.approx(frequency_place(1000), abs=0.01)
    change = decode_png(pictures.change)[row]
    assert np.median(change) == pytest.approx(128 - 127 * 6 / 12, abs=4)


def test_the_stereo_field_points_where_the_sound_is():
    instants = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * instants)
    left = decode_png(stereo_field(np.stack([tone, 0 * tone], axis=1), 1.0))
    middle = decode_png(stereo_field(np.stack([tone, tone], axis=1), 1.0))
    size = len(left)
    assert left[size // 4 + 2, size // 4 + 2] > 0
    assert left[size // 4 + 2, 3 * size // 4 - 2] == 0
    assert middle[5, size // 2] > 0


def decode_png(data: bytes) -> np.ndarray:
    """Palette indices of a picture as the report writes them."""
    import struct
    import zlib

    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    length = struct.unpack(">I", data[start - 4 : start])[0]
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + length]), np.uint8)
    return rows.reshape(height, width + 1)[:, 1:].astype(int)


def test_bands_follow_the_curve_and_break_where_nothing_is():
    frequencies = np.arange(0, 22_050, 10.0)
    curve = np.where(frequencies < 1000, 1.0, 0.5)
    curve[frequencies > 10_000] = np.nan
    means = dict(band_means(frequencies, curve))
    assert means[min(means)] == 1
    assert all(value == 0.5 for hz, value in means.items() if 1100 < hz < 9000)
    assert all(value is None for hz, value in means.items() if hz > 11_000)


def test_a_report_that_cannot_be_written_is_named(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/report.html: cannot be written: "):
        report.write_report(evaluation, tmp_path / "file", files=0)


def test_an_evaluation_of_nothing_has_a_report(tmp_path):
    path = report.write_report(Evaluation("empty", [], {"a.wav": "broken"}), tmp_path)
    assert "broken" in path.read_text()


def test_the_browser_shows_all_of_it_and_asks_for_nothing(chromium, page):
    assert chromium.requests() == [page.as_uri()]
    assert chromium.complaints() == []
    assert chromium.run("return document.querySelectorAll('article.pair').length") == 2
    pictures = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert chromium.run(f"return {pictures}")
    assert chromium.run("return document.querySelector('.chart path').getTotalLength()") > 100
    assert chromium.run("return document.querySelector('.files th').textContent") == HOSTILE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_phone_and_desktop_in_light_and_dark(chromium, width, dark):
    chromium.window(width, dark=dark)
    wide = "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll'))"
    right = chromium.run(f"return Math.max(...{wide}.map((e) => e.getBoundingClientRect().right))")
    assert right <= width
    colour = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour))) < 200) == dark
    chromium.window(1200)


def test_a_player_plays_and_switches_without_losing_the_position(chromium):
    assert state(chromium) == ("stopped", "original", 0)
    chromium.click("#file-1 .play")
    wait_for(lambda: state(chromium)[2] > 0.2)
    before = state(chromium)[2]
    for side in ("reconstruction", "difference", "original"):
        chromium.click(f"#file-1 .sides button[data-side={side}]")
        playing, heard, position = state(chromium)
        assert (playing, heard) == ("playing", side)
        # It went on from where it was; the two seconds of the excerpt come round again.
        assert (position - before) % 2.0 < 1.5
        before = position
        assert chromium.run("return document.querySelector('#file-1 .strip.heard').dataset.side") == side
    assert chromium.requests() == []
    assert chromium.complaints() == []
    chromium.click("#file-1 .play")
    stopped = state(chromium)
    assert stopped[0] == "stopped"
    time.sleep(0.3)
    assert state(chromium) == stopped


def test_only_one_player_sounds_and_each_keeps_its_position(chromium):
    chromium.click("#file-1 .play")
    wait_for(lambda: state(chromium)[0] == "playing")
    chromium.click("#file-2 .play")
    wait_for(lambda: state(chromium, "#file-2")[0] == "playing")
    kept = state(chromium)
    assert kept[0] == "stopped"
    chromium.click("#file-2 .play")
    assert state(chromium) == kept


def test_keys_and_clicks_in_the_picture(chromium):
    chromium.run("document.activeElement.blur()")
    chromium.keys("2")
    assert state(chromium, "#file-2")[1] == "reconstruction"
    chromium.keys("x")
    assert state(chromium, "#file-2")[1] == "original"
    chromium.click("#file-2 .strips")  # in the middle
    assert state(chromium, "#file-2")[2] == pytest.approx(1.0, abs=0.02)
    chromium.keys(" ")
    wait_for(lambda: state(chromium, "#file-2")[0] == "playing")
    chromium.keys(" ")
    assert state(chromium, "#file-2")[0] == "stopped"


def test_the_three_sides_sound_as_they_should(chromium):
    """The gains of the two sources: one of them, the other, or one turned around under the other."""
    chromium.click("#file-1 .play")
    wait_for(lambda: state(chromium)[0] == "playing")
    expected = {"original": [1, 0], "reconstruction": [0, 1], "difference": [-1, 1]}
    for side, gains in expected.items():
        chromium.click(f"#file-1 .sides button[data-side={side}]")
        wait_for(
            lambda g=gains: np.allclose(chromium.run("return players[0].gains.map((g) => g.gain.value)"), g)
        )
    buffers = "players[0].buffers.map((b) => [b.numberOfChannels, Math.round(b.duration * 1000)])"
    assert chromium.run(f"return {buffers}") == [[2, 2000], [2, 2000]]
    chromium.click("#file-1 .play")


def test_columns_sort(chromium):
    column = (
        "return [...document.querySelectorAll('.files tr')].map((row) => Number(row.cells[5].dataset.value))"
    )
    chromium.click(".results thead th:nth-child(6) button")
    assert chromium.run(column) == sorted(chromium.run(column))
    chromium.click(".results thead th:nth-child(6) button")
    assert chromium.run(column) == sorted(chromium.run(column), reverse=True)
