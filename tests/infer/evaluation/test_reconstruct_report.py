"""`earvae reconstruct --report`: what was just made, measured and shown."""

import json

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def tones(tmp_path):
    folder = tmp_path / "in"
    (folder / "album").mkdir(parents=True)
    for name, pitch in (("a.wav", 220), ("album/b.flac", 330)):
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(12_000) / 8000)
        soundfile.write(folder / name, np.stack([wave, 0.5 * wave], axis=1), 8000)
    return folder


def test_report_covers_new_and_finished_files(earvae, tones, small_checkpoint, tmp_path):
    out = tmp_path / "out"
    call = ("reconstruct", tones, "--checkpoint", small_checkpoint, "--output-dir", out)
    status, _ = earvae(*call)
    assert status == 0 and not (out / "report.html").exists()
    status, _ = earvae(*call, "--report")
    assert status == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "a.wav" in page and "album/b.flac" in page
    assert "si_sdr" in (out / "evaluation_files.csv").read_text()
    json.loads((out / "evaluation_results.json").read_text())


def test_report_tells_of_a_failed_file(earvae, tones, small_checkpoint, tmp_path):
    (tones / "broken.wav").write_text("not audio")
    out = tmp_path / "out"
    status, lines = earvae(
        "reconstruct", tones, "--checkpoint", small_checkpoint, "--output-dir", out, "--report"
    )
    assert status == 1 and any("broken.wav" in line for line in lines)
    assert (out / "report.html").exists()
