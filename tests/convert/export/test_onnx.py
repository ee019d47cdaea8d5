"""Exported ONNX gives the codec's answers in a process without this package, and in a browser."""

import functools
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path

import browser
import exports
import numpy as np
import pytest
import small_models
from places import ROOT
from tolerances import EXPORTED_ONNX

from earvae_jax import checkpoints, demo
from earvae_jax.audio.reader import read
from earvae_jax.convert.export import agreement, onnx_models
from earvae_jax.convert.export.folder import export
from earvae_jax.errors import UserError
from earvae_jax.infer import Codec

pytestmark = pytest.mark.usefixtures("quick_compilation")

for module in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module)

PAGE = ROOT / "docs" / "browser" / "index.html"


@pytest.fixture
def unchecked(monkeypatch):
    """Without the command's own check: what it would look at is looked at."""
    monkeypatch.setattr(agreement.Reference, "compared", lambda *_: agreement.Agreement(0.0, ()))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory) -> Path:
    """The demo model's export, checked by the command itself at one size."""
    folder = tmp_path_factory.mktemp("bundled") / "exported_onnx"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(agreement, "SIZES", ((2, 3),))
        export(None, folder, format="onnx")
    return folder


def compare(folders: dict[str, Path], models, tmp_path) -> None:
    cases = {name: exports.case(exports.model(name, models)) for name in folders}
    for name, case in cases.items():
        case.lay(folders[name].parent, channels_first=True)
    places = [folder.parent for folder in folders.values()]
    exports.run_without_this_package(exports.program("import onnxruntime"), places, tmp_path)
    for name, case in cases.items():
        distances = case.distances(folders[name].parent, channels_first=True)
        assert max(distances.values()) <= EXPORTED_ONNX, (name, distances)


def test_a_process_without_this_package_gives_the_codecs_answers(bundled, models, tmp_path):
    compare({"bundled": bundled}, models, tmp_path)


@pytest.mark.slow
def test_so_do_the_recordings_models(models, tmp_path, unchecked):
    folders = {}
    for name in ("tiny_44k", "tiny_48k", exports.FAMILY):
        checkpoints.save(tmp_path / f"{name}.safetensors", exports.model(name, models))
        folders[name] = tmp_path / name / "exported_onnx"
        export(tmp_path / f"{name}.safetensors", folders[name], format="onnx")
    compare(folders, models, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("opset", onnx_models.OPSETS)
def test_every_opset(opset, tmp_path):
    import onnx

    model = small_models.model(small_models.KINDS["transformer"])
    files = onnx_models.write(tmp_path, model, opset, {})
    assert {onnx.load(path).opset_import[0].version for path in files.values()} == {opset}
    agreement.Reference(model).compared(onnx_models.runner(files))


@pytest.mark.slow
@pytest.mark.parametrize("kind", small_models.KINDS)
def test_every_kind_of_model(kind, tmp_path):
    model = small_models.model(small_models.KINDS[kind])
    agreement.Reference(model).compared(onnx_models.runner(onnx_models.write(tmp_path, model, 18, {})))


def test_a_model_says_what_it_is(bundled):
    import onnx

    facts = json.loads((bundled / "metadata.json").read_text())
    for part in ("encoder", "transformer", "decoder"):
        loaded = onnx.load(bundled / f"{part}.onnx")
        onnx.checker.check_model(loaded)
        said = {entry.key: json.loads(entry.value) for entry in loaded.metadata_props}
        assert facts.items() <= said.items()
        assert loaded.opset_import[0].version == facts["onnx"]["opset"] == 18
        for value in (*loaded.graph.input, *loaded.graph.output):
            batch, rows, time = value.type.tensor_type.shape.dim
            assert batch.dim_param == "batch" and rows.dim_value
            assert time.dim_param == ("samples" if value.name == "audio" else "latents")


def test_a_part_that_one_file_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_models, "_LARGEST", 1000)
    with pytest.raises(UserError, match="an ONNX file holds 2 GB: use --format stablehlo"):
        onnx_models.write(tmp_path, small_models.model(small_models.KINDS["even strides"]), 18, {})


def test_what_the_exporter_cannot_take_is_one_line(tmp_path, monkeypatch):
    import torch

    def refuse(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator\nand many lines more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        UserError, match="PyTorch cannot write this model's encoder as ONNX, opset 18"
    ) as raised:
        onnx_models.write(tmp_path, small_models.model(small_models.KINDS["even strides"]), 18, {})
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def site(bundled, tmp_path_factory):
    """The page beside the model, with a copy of onnxruntime-web, on a server."""
    reason = browser.missing()
    runtime = os.environ.get("EARVAE_ONNXRUNTIME_WEB")
    if reason or not runtime:
        pytest.skip(reason or "EARVAE_ONNXRUNTIME_WEB does not name a copy of onnxruntime-web's dist/")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(bundled, folder, dirs_exist_ok=True)
    (folder / "ort").symlink_to(Path(runtime).absolute())
    text = PAGE.read_text(encoding="utf-8")
    address = next(line for line in text.splitlines() if line.startswith("const ORT = "))
    (folder / "index.html").write_text(text.replace(address, 'const ORT = "ort/";'), encoding="utf-8")
    handler = functools.partial(_QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def chromium(site, tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("profile")) as session:
        session.visit(site)
        assert state_after(session, "loading") == "ready", session.run("return document.body.innerText")
        yield session


def state_after(session, *states: str) -> str:
    deadline = time.monotonic() + 120
    while (state := session.run("return document.body.dataset.state")) in states:
        assert time.monotonic() < deadline, f"still {state}"
        time.sleep(0.1)
    return state


def test_the_page_reconstructs_a_song_in_a_browser(chromium, site, tmp_path):
    chromium.run("document.getElementById('seconds').value = 3")
    chromium.choose("#file", demo.CLIP)
    assert state_after(chromium, "ready", "working") == "done", chromium.run("return document.body.innerText")
    given, audio = (
        np.float32(chromium.run(f"return last.{name}.map((row) => Array.from(row))"))
        for name in ("given", "audio")
    )
    song, _ = read(demo.CLIP)
    assert given.shape == audio.shape == (2, 3 * 44_100)
    np.testing.assert_allclose(given.T, song[: 3 * 44_100], rtol=0, atol=1e-6)
    expected = Codec.load().reconstruct(given.T)
    np.testing.assert_allclose(audio.T, expected, rtol=0, atol=EXPORTED_ONNX)
    assert "The first 3.0 s of" in chromium.run("return document.getElementById('status').textContent")
    chromium.click("h1")  # a gesture, without which nothing plays
    chromium.run("document.getElementById('reconstruction').play()")
    deadline = time.monotonic() + 30
    while not chromium.run("return document.getElementById('reconstruction').currentTime > 0.2"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert all(address.startswith((site, "blob:")) for address in chromium.requests())
    assert not chromium.complaints()
    chromium.window(390)
    assert chromium.run("return document.documentElement.scrollWidth") <= 390


def test_a_wrong_file_is_one_line_and_the_page_goes_on(chromium, tmp_path):
    (tmp_path / "notes.wav").write_text("no audio")
    chromium.choose("#file", tmp_path / "notes.wav")
    assert state_after(chromium, "ready", "done", "working") == "wrong"
    said = chromium.run("return document.getElementById('status').textContent")
    assert said == "notes.wav: this browser cannot read it as audio"
    assert not chromium.run("return document.getElementById('file').disabled")


def test_a_page_without_its_model_says_so(site, tmp_path):
    (tmp_path / "index.html").write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    handler = functools.partial(_QuietHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with browser.browser(tmp_path / "profile") as session:
        session.visit(f"http://127.0.0.1:{server.server_port}/")
        assert state_after(session, "loading") == "wrong"
        assert "metadata.json is not beside this page" in session.run("return document.body.innerText")
    server.shutdown()
    server.server_close()
