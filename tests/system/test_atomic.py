"""Nothing half-written stands under a final name."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from earvae_jax.system.atomic import replacing

DEAD = 2**22 - 1  # above every process number that Linux gives by default


def temporary_of(name, process):
    return f".{name}.{socket.gethostname()}-{process}.partial"


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.wav"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.wav"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folders_are_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [found.name for found in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.wav", "a[1]*?.wav"])
def test_what_the_dead_left_is_removed_and_nothing_else(tmp_path, name):
    dead = tmp_path / temporary_of(name, DEAD)
    kept = [
        tmp_path / temporary_of(name, os.getppid()),  # still running
        tmp_path / f".{name}.elsewhere-{DEAD}.partial",  # of another host
        tmp_path / temporary_of("a1.wav", DEAD),  # of another output
    ]
    for path in (dead, *kept):
        path.write_text("half")
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert not dead.exists() and all(path.exists() for path in kept)


def test_kill_while_writing_leaves_no_final_name(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from earvae_jax.system.atomic import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.wav"
    killed = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]
