"""The page about a run: whole, self-contained, and true to the numbers."""

import html.parser
import logging
import re
from xml.etree import ElementTree

import pytest
import small_training

from earvae_jax.train.watch.summary import write_summary

CURVES = {
    "validation/si_sdr": [(100, 1.0), (200, 3.5), (300, 2.25)],
    "train/loss": [(step, 1 / step) for step in range(1, 3000)],
    "train/gradient_norm/encoder": [(1, 0.5)],
    "health/side_change_db": [(100, -4.0), (200, -4.0)],
}


class _Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def written(tmp_path, **options):
    path = tmp_path / "run <b>" / "summary.html"
    write_summary(path, small_training.config(steps=300), CURVES, step=300, **options)
    return path.read_text(encoding="utf-8")


def test_the_page_shows_curves_warnings_songs_and_config(tmp_path):
    songs = {"a & b.flac": {"si_sdr": 7.125, "icpc": 0.9}}
    page = written(tmp_path, warnings=["side signal: 4.0 dB lost <"], songs=songs)
    reader = _Text()
    reader.feed(page)
    text = " ".join(reader.texts)
    assert "step 300 of 300" in text and "Run run <b>" in text and "side signal: 4.0 dB lost <" in text
    assert "a & b.flac" in text and "7.125" in text and '"crop_samples": 1024' in text
    assert "learning rate" in text and "adversarial share" in text
    assert not reader.sources and "<script" not in page  # nothing is fetched


def test_a_curve_goes_through_its_points(tmp_path):
    page = written(tmp_path)
    charts = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(charts) == len(CURVES)
    (chart,) = (each for each in charts if "SI-SDR dB" in each)
    figure = ElementTree.fromstring(chart)
    assert figure.find("figcaption/b").text == "2.25"
    points = [
        tuple(map(float, point.split(","))) for point in figure.find("svg/polyline").get("points").split()
    ]
    heights = [y for _, y in points]
    assert len(points) == 3 and points[0][0] < points[1][0] < points[2][0]
    assert heights[1] < heights[2] < heights[0]  # the highest value lies at the top
    assert (heights[0] - heights[2]) / (heights[0] - heights[1]) == pytest.approx(0.5, abs=0.01)
    (loss,) = (each for each in charts if ">loss<" in each)
    assert 100 < loss.count(",") < 450


def test_a_failing_disk_costs_the_page_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        write_summary(tmp_path / "file" / "summary.html", small_training.config(), CURVES, step=1)
    assert "training goes on" in caplog.text
