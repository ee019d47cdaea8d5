"""The page in a real browser: from a dropped song to playing, and every way in which a visit can go wrong."""

import itertools
import tempfile
import threading
import time
from pathlib import Path

import browser
import coded_audio
import numpy as np
import pytest
import soundfile

from earvae_jax.infer.web_app.limits import Limits
from earvae_jax.infer.web_app.models import Models
from earvae_jax.infer.web_app.server import served

pytest.importorskip("gradio", reason="the extra demo is not installed")
pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 44_100
HARMLESS = "Method not implemented."  # Gradio's client says it whenever it closes a stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the server lays its files."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(folder))
        yield folder
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def address(folder, small_checkpoint):
    with served(checkpoint=str(small_checkpoint), limits=Limits(megabytes=1)) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    reason = browser.missing()
    if reason:
        pytest.skip(f"the page is looked at in a browser, and {reason}")
    with browser.browser(tmp_path_factory.mktemp("profile")) as session:
        yield session


@pytest.fixture
def page(chromium, address):
    """The page, opened anew at desktop width."""
    chromium.window(1200)
    opened(chromium, address)
    chromium.complaints()
    return chromium


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for seed, name in enumerate(("one", "other")):
        coded_audio.encode(
            folder / f"{name}.mp3",
            coded_audio.CODINGS["mp3"],
            coded_audio.music(RATE, 2, RATE, seed),
            RATE,
        )
    (folder / "wrong.pdf").write_bytes(b"%PDF-1.4 nothing\n" * 50)
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "large.wav").write_bytes(b"0" * (3 << 20))
    soundfile.write(folder / "two hours.flac", np.zeros(7200 * 8000, np.int16), 8000)
    return folder


def opened(chromium, address: str) -> None:
    chromium.open(address)
    wait_for(chromium, "document.querySelector('#reconstruct')?.offsetWidth > 0")


def wait_for(chromium, condition: str, seconds: float = 120):
    """The value of a condition, a JavaScript expression, once it holds."""
    deadline = time.monotonic() + seconds
    while not (value := chromium.run(f"return {condition}")):
        assert time.monotonic() < deadline, f"{condition}: {chromium.run('return document.body.innerText')}"
        time.sleep(0.05)
    return value


def drop(chromium, song: Path, place: str = "song", status: str = "status", kind: str = "note") -> str:
    """Drops a song and waits for the line about it."""
    chromium.upload(f"#{place} input[type=file]", song)
    line = f"document.querySelector('#{status} .{kind}')"
    return wait_for(chromium, f"{line}?.innerText.includes({song.name.split('.')[0]!r}) && {line}.innerText")


def report(chromium, seconds: float = 120) -> str:
    """Waits for the report; the expression of its document."""
    document = "document.querySelector('iframe.report')?.contentDocument"
    wait_for(chromium, f"!!{document}?.querySelector('.play')", seconds)
    return document


def play(chromium) -> None:
    """Plays the report, and hears all sides of it."""
    state = "const data = document.querySelector('article.pair').dataset; return [data.state, data.side]"
    with chromium.inside("iframe.report"):
        chromium.click(".play")
        wait_for(chromium, "document.querySelector('article.pair').dataset.position > 0.1")
        for side in ("reconstruction", "difference", "original"):
            chromium.click(f".sides button[data-side={side}]")
            assert chromium.run(state) == ["playing", side]
        chromium.click(".match")
        assert chromium.run("return players[0].match.checked")
        chromium.click(".play")
        assert chromium.run(state)[0] == "stopped"


def complaints(chromium) -> list[str]:
    return [line for line in chromium.complaints() if HARMLESS not in line]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def reconstructed(chromium, address, songs):
    """The page after a song was dropped, sampled and measured; the requests until then are checked."""
    chromium.window(1200)
    chromium.requests()
    opened(chromium, address)
    assert drop(chromium, songs / "one.mp3") == "one.mp3: 0:01, stereo, 44100 Hz"
    chromium.click("#latent input[value=sample]")
    wait_for(chromium, "document.querySelector('#seed input')?.offsetWidth > 0")
    chromium.click("#reconstruct")
    wait_for(chromium, "document.querySelectorAll('#view figure img').length == 2")
    report(chromium)
    return chromium


def test_a_song_from_dropping_to_playing(reconstructed, address):
    document = report(reconstructed)
    assert reconstructed.run(f"return {document}.querySelector('h2').textContent") == "one.mp3"
    assert "sample, seed 0" in reconstructed.run(f"return {document}.querySelector('h1').textContent")
    assert reconstructed.run(f"return {document}.querySelectorAll('.tile .value').length") == 6
    play(reconstructed)
    outside = [asked for asked in reconstructed.requests() if not asked.startswith((address, "blob:"))]
    assert outside == []
    assert complaints(reconstructed) == []


def test_audio_and_latents_are_saved(reconstructed, folder, tmp_path):
    reconstructed.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for button, name in (("#audio", "one_vae_rec.wav"), ("#latents", "one.npz")):
        reconstructed.click(button)
        (kept,) = folder.rglob(name)
        saved, content = tmp_path / name, kept.read_bytes()
        until(lambda saved=saved, content=content: saved.exists() and saved.read_bytes() == content)


def test_the_page_fits_phone_and_desktop_in_light_and_dark(reconstructed):
    page, document = reconstructed, report(reconstructed)
    for width, dark in itertools.product((390, 1200), (False, True)):
        page.window(width, dark=dark)
        frame = "document.querySelector('iframe').offsetHeight"
        wait_for(page, f"Math.abs({frame} - {document}.body.offsetHeight) < 2")
        assert page.run("return document.documentElement.scrollWidth") <= width
        inside = f"{document}.documentElement"
        assert page.run(f"return {inside}.scrollWidth <= {inside}.clientWidth")
        heads = f"[...{document}.querySelectorAll('.levels thead th:nth-child(n + 2)')]"
        lines = page.run(f"return {heads}.map((head) => head.getClientRects().length && head.offsetHeight)")
        assert len(lines) == 3 and max(lines) < 32, "a word is broken"
        for body in ("document", document):
            colour = f"getComputedStyle({body}.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
            wait_for(
                page, f"({colour}.reduce((sum, part) => sum + Number(part), 0) < 200) == {str(dark).lower()}"
            )
    tab(page, "Interpolate")
    page.window(390)
    assert page.run("return document.documentElement.scrollWidth") <= 390


def tab(chromium, name: str) -> None:
    """Goes to a tab of the page."""
    buttons = "[...document.querySelectorAll('button[role=tab]')]"
    chromium.run(f"{buttons}.find((button) => button.textContent.includes('{name}')).click()")
    wait_for(chromium, f"document.querySelector('#{name.lower()}').offsetWidth > 0")


def test_a_song_between_two_songs(page, songs, folder):
    tab(page, "Interpolate")
    page.click("#interpolate")
    line = "document.querySelector('#between-status .error')?.innerText"
    assert wait_for(page, line) == "drop two songs first"
    drop(page, songs / "one.mp3", "one", "between-status")
    drop(page, songs / "other.mp3", "other", "between-status")
    page.click("#interpolate")
    wait_for(page, "document.querySelector('#between-view .stage')?.innerText.includes('Done')")
    until(lambda: "between_50.wav" in files(folder))
    wait_for(page, "document.querySelector('#between').innerText.includes('0:01')")
    page.click("#between button[aria-label=Play]")
    wait_for(page, "document.querySelector('#between button[aria-label=Pause]') != null")
    page.run(
        "const slider = document.querySelector('#weight input[type=range]'); slider.value = 1; "
        "for (const kind of ['input', 'change', 'pointerup']) "
        "slider.dispatchEvent(new Event(kind, { bubbles: true }))"
    )
    until(lambda: "between_100.wav" in files(folder))


@pytest.mark.parametrize(
    "name, message",
    [
        ("wrong.pdf", "wrong.pdf: not readable as audio: "),
        ("empty.mp3", "empty.mp3: is empty"),
        ("two hours.flac", "two hours.flac: 2:00:00; this page takes songs up to 10:00: "),
    ],
)
def test_what_is_no_song_is_said_in_one_line(page, songs, name, message):
    line = drop(page, songs / name, kind="error")
    assert line.startswith(message)
    page.click("#reconstruct")
    time.sleep(0.5)
    assert page.run("return document.querySelector('#status .error').innerText") == line
    assert page.run("return document.querySelector('#view').innerText.trim()") == ""
    assert complaints(page) == []


def test_a_file_that_is_too_large_is_not_sent(page, songs, folder):
    before = files(folder)
    page.upload("#song input[type=file]", songs / "large.wav")
    wait_for(page, "document.body.innerText.includes('exceed the maximum allowed size of 1.0 Mb')")
    assert files(folder) == before
    page.click("#reconstruct")
    line = "document.querySelector('#status .error')?.innerText"
    assert wait_for(page, line) == "drop a song first, or take the bundled clip"


def test_two_visitors_wait_for_each_other_and_a_closed_tab_lets_the_next_one_go_on(
    page, address, songs, folder, monkeypatch
):
    gate, codec = threading.Event(), Models.codec

    def slowly(*words):
        assert gate.wait(120)
        return codec(*words)

    monkeypatch.setattr(Models, "codec", slowly)
    (first,) = page.tabs()
    drop(page, songs / "one.mp3")
    page.click("#reconstruct")
    stage = "document.querySelector('#view .stage')?.innerText"
    wait_for(page, f"{stage} == 'Loading the model'")
    second = page.new_tab()
    page.window(1200)
    opened(page, address)
    drop(page, songs / "other.mp3")
    page.click("#reconstruct")
    wait_for(page, f"{stage} == 'Waiting: another song is before this one'")
    assert files(folder) == ["one.mp3", "other.mp3"]
    page.go(first)
    page.close_tab()
    until(lambda: files(folder) == ["other.mp3"])  # at once, though its computation is not through
    page.go(second)
    assert "Waiting" in page.run(f"return {stage}")
    gate.set()
    report(page)
    assert files(folder) == ["other.mp3", "other.npz", "other_vae_rec.wav"]
    opened(page, address)  # and so does loading the page anew
    until(lambda: files(folder) == [])


@pytest.mark.slow
def test_three_minutes_from_upload_to_playing(chromium, folder, tmp_path):
    """With the bundled model and everything that a visitor sees by default."""
    song = tmp_path / "three minutes.mp3"
    coded_audio.encode(song, coded_audio.CODINGS["mp3"], coded_audio.music(180 * RATE, 2, RATE), RATE)
    with served() as address:
        chromium.window(1200)
        opened(chromium, address)
        assert drop(chromium, song) == "three minutes.mp3: 3:00, stereo, 44100 Hz"
        chromium.click("#reconstruct")
        stage = "document.querySelector('#view .stage')?.innerText"
        for word in ("Encoding", "Decoding", "Measuring"):
            wait_for(chromium, f"{stage}?.startsWith('{word}')", 300)
        document = report(chromium, 400)
        play(chromium)
        facts = chromium.run(f"return {document}.querySelector('article .facts').textContent")
        assert facts.startswith("3:00.0, stereo; shown and played: ")
