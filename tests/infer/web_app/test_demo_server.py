"""`earvae demo` serves to this machine alone, asks nobody else, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from earvae_jax.errors import UserError
from earvae_jax.infer.web_app.limits import Limits
from earvae_jax.infer.web_app.server import served

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@pytest.fixture
def gradio():
    return pytest.importorskip("gradio", reason="the extra demo is not installed")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_without_gradio_one_line_names_the_extra(earvae, monkeypatch, temporary):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"earvae-jax\[demo\]"), served():
        pass
    assert not list(temporary.iterdir())
    status, lines = earvae("demo")
    assert status == 2
    assert lines == [
        "error: this needs gradio, which is not installed; run: pip install 'earvae-jax[demo]'",
    ]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--port", "0"), "'0' is not a port"),
        (("--max-seconds", "-1"), "'-1' is not a positive number"),
        (("--max-mb", "nan"), "'nan' is not a positive number"),
        (("--dtype", "float8"), "invalid choice"),
    ],
)
def test_wrong_flags_are_refused(words, message, earvae):
    status, lines = earvae("demo", *words)
    assert status == 2
    assert len(lines) == 1 and message in lines[0]


def test_a_port_that_is_taken_and_a_host_that_is_not_here(earvae, gradio, temporary):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, lines = earvae("demo", "--port", port)
    assert status == 2
    assert lines == [f"error: 127.0.0.1, port {port}: Address already in use: choose another --port"]
    status, lines = earvae("demo", "--host", "192.0.2.1")  # of a range that no machine has
    assert status == 2
    assert len(lines) == 1 and "192.0.2.1" in lines[0] and lines[0].endswith("choose another --host")
    assert not list(temporary.iterdir())


def test_a_missing_checkpoint_is_said_at_once(earvae, gradio):
    status, lines = earvae("demo", "--checkpoint", "nowhere.safetensors")
    assert status == 2
    assert lines == ["error: nowhere.safetensors: no such checkpoint"]


def test_it_listens_on_this_machine_alone_and_asks_nobody(gradio, temporary, monkeypatch):
    asked: list[str] = []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def looking_up(host, *rest, **options):
        asked.append(host)
        return look_up(host, *rest, **options)

    def connecting(self, address):
        asked.append(address[0] if isinstance(address, tuple) else "a file")
        return connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", looking_up)
    monkeypatch.setattr(socket.socket, "connect", connecting)
    before = dict(os.environ)
    with served(limits=Limits(seconds=60)) as address:
        assert address.startswith("http://127.0.0.1:")
        (folder,) = temporary.iterdir()
        port = int(address.rstrip("/").rpartition(":")[2])
        page = urllib.request.urlopen(address, timeout=30).read().decode()
        assert "Songs of up to 1:00" in page
        for path in (folder.parent / "secret", Path(__file__)):  # nothing but visitors' files is served
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{address}gradio_api/file={path}", timeout=30)
        time.sleep(0.5)  # threads of its own would have asked by now
    assert asked and set(map(str, asked)) <= {*LOOPBACK, "a file"}
    assert not list(temporary.iterdir())
    assert dict(os.environ) == before
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_wrong_dtype_in_python():
    with pytest.raises(UserError, match="dtype 'float8'"), served(dtype="float8"):
        pass


def test_a_stopped_server_leaves_nothing(gradio, tmp_path):
    port = free_port()
    words = [sys.executable, "-m", "earvae_jax", "demo", "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline() == f"open http://127.0.0.1:{port}/ in a browser; Ctrl-C ends it\n"
        (folder,) = tmp_path.iterdir()
        (folder / "left").write_text("of a visitor")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert rest == "stopped; what visitors left is deleted\n"
    assert not list(tmp_path.iterdir())
