"""Whatever people name as an input: streams, odd names, links, what may not be read, and what goes wrong."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
import soundfile

from earvae_jax import checkpoints
from earvae_jax.audio.ffmpeg import FfmpegFile
from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.audio.search import find_audio
from earvae_jax.audio.sndfile import SndFile
from earvae_jax.audio.writer import write
from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets.records import STATISTICS

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000


def noise(samples, channels=2, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels), np.float32)


def names(folder):
    """What was written for the inputs; the statistics of all latents are left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != STATISTICS)
    return sorted(os.fsencode(path.relative_to(folder)) for path in found)


@pytest.mark.parametrize("word", ["-", "/dev/stdin"])
def test_standard_input(earvae, small_checkpoint, tmp_path, monkeypatch, word):
    write(tmp_path / "a.wav", noise(700), RATE)
    out = tmp_path / "out"
    call = ("reconstruct", word, "--checkpoint", small_checkpoint, "--output-dir", out)

    def given(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given((tmp_path / "a.wav").read_bytes())
    assert earvae(*call)[0] == 0 and len(read(out / "stdin.wav")[0]) == 700
    given((tmp_path / "a.wav").read_bytes())
    status, lines = earvae(*call)  # nobody knows whether it is the same
    assert status == 1 and any("exists already, perhaps from another recording" in line for line in lines)
    given(b"")
    status, lines = earvae(*call, "--overwrite")
    assert status == 1 and any(f"{word}: is empty" in line for line in lines)
    status, lines = earvae(*call, "--report")
    assert status == 2 and "--report reads its inputs twice" in lines[0]


def test_a_pipe_is_read_to_its_end(tmp_path):
    audio = noise(5000)
    write(tmp_path / "a.wav", audio, RATE)
    os.mkfifo(tmp_path / "pipe")
    feeding = subprocess.Popen(["sh", "-c", 'cat "$1" > "$2"', "sh", tmp_path / "a.wav", tmp_path / "pipe"])
    np.testing.assert_array_equal(read(tmp_path / "pipe")[0], audio)
    assert feeding.wait() == 0


@pytest.mark.parametrize(
    "name", [b"-dash.wav", b"new\nline.wav", b"caf\xe9.wav", "音 ü.wav".encode(), b" .wav"]
)
def test_any_name_is_kept(earvae, small_checkpoint, tmp_path, name):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    write(root / "plain.wav", noise(400), RATE)
    (root / "plain.wav").rename(root / os.fsdecode(name))
    model = ("--checkpoint", small_checkpoint)
    for command, ending in (("reconstruct", b".wav"), ("encode", b".npz")):
        status, lines = earvae(command, root, *model, "--output-dir", out / command)
        assert status == 0 and names(out / command) == [name.removesuffix(b".wav") + ending], lines
        assert all(line.isprintable() for line in lines)
    assert earvae("decode", out / "encode", *model, "--output-dir", out / "decode")[0] == 0
    assert names(out / "decode") == [name]
    status, lines = earvae("evaluate", root, out / "decode", "--output-dir", out)
    assert status == 0 and (out / "report.html").exists(), lines


def test_a_name_as_long_as_the_system_allows(earvae, small_checkpoint, tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    for letter, count in (("n", longest - 4), ("ü", (longest - 4) // 2)):
        write(tmp_path / "in" / f"{letter * count}.wav", noise(400), RATE)
    call = (
        "reconstruct",
        tmp_path / "in",
        "--checkpoint",
        small_checkpoint,
        "--output-dir",
        tmp_path / "out",
    )
    status, lines = earvae(*call)
    assert status == 0 and names(tmp_path / "out") == names(tmp_path / "in"), lines


def test_links_and_folders_that_cannot_be_read(tmp_path, monkeypatch):
    for name in (
        "a.wav",
        "sub/b.WAVE",
        "sub/c.mp2",
        "real/d.m4b",
        "real/e.mka",
        "film.ts",
        "code.ts",
        "n.txt",
    ):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("const code = 1;")
    (tmp_path / "in" / "film.ts").write_bytes((b"G" + bytes(187)) * 3)
    (tmp_path / "in" / "sub" / "up").symlink_to("..")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "real")
    (tmp_path / "in" / "self.wav").symlink_to("self.wav")
    (tmp_path / "in" / "gone.flac").symlink_to("nowhere")
    (tmp_path / "in" / "also.wav").symlink_to("a.wav")
    (tmp_path / "in" / "locked").mkdir()
    listing = Path.iterdir

    def locked(self):
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listing(self)

    monkeypatch.setattr(Path, "iterdir", locked)
    found = [str(relative) for _, relative in find_audio([tmp_path / "in"])]
    top = ["a.wav", "also.wav", "film.ts", "gone.flac", "locked"]
    assert found == [*top, "real/d.m4b", "real/e.mka", "self.wav", "sub/b.WAVE", "sub/c.mp2"]
    for name, reason in (
        ("locked", "no permission"),
        ("gone.flac", "a broken link"),
        ("self.wav", "symbolic links"),
    ):
        with pytest.raises(UserError, match=reason):
            AudioReader(tmp_path / "in" / name)


def test_no_permission_is_said_as_such(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", noise(10), RATE)
    opening = Path.open

    def locked(self, *arguments, **options):
        if self.name == "a.wav":
            raise PermissionError(13, "Permission denied")
        return opening(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(UserError, match=r"a\.wav: no permission to read it"):
        read(tmp_path / "a.wav")


class UnheardOfError(Exception):
    """What no list of exceptions has."""


@pytest.mark.parametrize("where", ["open", "read", "FFmpeg", "resample", "write", "keep"])
@pytest.mark.parametrize(
    "error",
    [
        lambda: UnheardOfError("of\nthis"),
        lambda: KeyError("x"),
        MemoryError,
        lambda: UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no"),
    ],
    ids=["unheard of", "key", "memory", "unicode"],
)
def test_no_exception_of_a_library_ends_a_run(earvae, small_checkpoint, tmp_path, monkeypatch, where, error):
    for name in ("a.wav", "c.wav"):
        write(tmp_path / "in" / name, noise(400), RATE)
    victim = tmp_path / "in" / "b.wav"
    write(victim, noise(500), 11_025)
    if where == "FFmpeg":
        victim.unlink()
        victim = tmp_path / "in" / "b.mp3"
        soundfile.write(victim, noise(5000), 44_100)

    def failing(function, concerns):
        def wrapped(*arguments, **options):
            if concerns(*arguments):
                raise error()
            return function(*arguments, **options)

        return wrapped

    from earvae_jax.audio import resampling, writer
    from earvae_jax.infer.latents import files as latents

    def patch(owner, name, concerns):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), concerns))

    if where == "open":
        patch(AudioReader, "_open", lambda reader: reader.path == victim)
    elif where == "read":
        patch(SndFile, "read", lambda source, frames: source.sample_rate == 11_025)
    elif where == "FFmpeg":
        patch(FfmpegFile, "read", lambda source, frames: True)
    elif where == "resample":
        patch(resampling.Resampler, "__call__", lambda resampler, block: resampler._rates[0] == 11_025)
    elif where == "write":
        patch(writer.AudioFile, "write", lambda file, block: "b.wav" in os.fsdecode(file._file.name))
    else:
        patch(latents.np, "savez", lambda file: b"b.npz" in os.fsencode(file.name))
    command = "encode" if where == "keep" else "reconstruct"
    out = tmp_path / "out"
    call = (command, tmp_path / "in", "--checkpoint", small_checkpoint, "--output-dir", out)
    status, lines = earvae(*call)
    ending = ".npz" if command == "encode" else ".wav"
    assert status == 1 and names(out) == [f"a{ending}".encode(), f"c{ending}".encode()], lines
    assert sum(line.startswith("error: ") and "/b." in line for line in lines) == 1, lines
    assert len(lines) == 4 and "Traceback" not in "".join(lines)


def test_a_program_that_fails_says_so_in_one_line(earvae, tmp_path, monkeypatch):
    from earvae_jax import checkpoints

    def fail(path):
        raise UnheardOfError("of\nthis")

    monkeypatch.setattr(checkpoints, "read_info", fail)
    status, lines = earvae("info")
    assert (
        status == 2 and len(lines) == 1 and "UnheardOfError: of" in lines[0] and "EARVAE_DEBUG=1" in lines[0]
    )


def test_devices_that_are_not_there(tmp_path, small_checkpoint):
    write(tmp_path / "a.wav", noise(300), RATE)
    words = ["encode", tmp_path / "a.wav", "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "earvae_jax", *map(str, words)],
        env=dict(os.environ, JAX_PLATFORMS="cuda"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "JAX finds no device for JAX_PLATFORMS=cuda" in done.stderr.splitlines()[-1]


def test_a_wave_of_the_home_folder(earvae, small_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.wav", noise(300), RATE)
    checkpoint = tmp_path / small_checkpoint.name
    checkpoint.write_bytes(small_checkpoint.read_bytes())
    status, lines = earvae("encode", "~/a.wav", "--output-dir=~/out", f"--checkpoint=~/{checkpoint.name}")
    assert status == 0 and (tmp_path / "out" / "a.npz").exists(), lines


def test_a_flac_that_clips_says_how_much(earvae, small_checkpoint, tmp_path, caplog):
    loud = noise(800)
    loud[100:104] = 2.0
    write(tmp_path / "a.flac", loud, RATE, format="flac")
    assert "a.flac: 8 samples above full scale were clipped, the loudest by 6.02 dB" in caplog.text


def test_the_folder_of_a_run_is_a_checkpoint(earvae, small_checkpoint, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    status, lines = earvae("info", run)
    assert status == 2 and "has not written model.safetensors yet" in lines[0]
    checkpoints.save(run / "model.safetensors", small_models.model(small_models.KINDS["even strides"]))
    assert earvae("info", run)[0] == 0
    assert checkpoints.load(run).config == checkpoints.load(small_checkpoint).config


def test_a_value_that_is_no_number_leaves_the_others(earvae, tmp_path):
    write(tmp_path / "in" / "a.wav", noise(30_000), 44_100)
    write(tmp_path / "out" / "a.wav", noise(30_000) * 1e25, 44_100)
    status, lines = earvae("evaluate", tmp_path / "in", tmp_path / "out", "--output-dir", tmp_path)
    assert status == 0 and (tmp_path / "report.html").exists(), lines
    table = (tmp_path / "evaluation_files.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert float(row["si_sdr"]) > 100 and "nan" not in table[1].lower() and "inf" not in table[1].lower()
