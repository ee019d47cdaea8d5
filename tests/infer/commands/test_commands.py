"""`earvae reconstruct`, `encode`, `decode` and `info` on files, good and bad."""

import errno
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import small_models
import soundfile

from earvae_jax import checkpoints
from earvae_jax.audio.reader import AudioReader, read
from earvae_jax.audio.writer import write
from earvae_jax.infer.latent_sets.records import STATISTICS

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000


def noise(samples, channels=2, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels), np.float32)


@pytest.fixture
def folder(tmp_path):
    """A folder of music in two levels, and files that are none."""
    root = tmp_path / "music"
    (root / "album").mkdir(parents=True)
    write(root / "a.wav", noise(3000), RATE)
    write(root / "album" / "b.flac", noise(5001, 1), 11_025, format="flac")
    soundfile.write(root / "album" / "c.ogg", noise(20_000), 44_100)
    soundfile.write(root / "d.mp3", noise(30_000), 48_000)
    (root / "cover.jpg").write_bytes(b"no audio")
    (root / ".hidden.wav").write_bytes(b"no audio")
    return root


def outputs(path):
    """What was written for the inputs; the statistics of all latents are left out."""
    found = (each for each in path.rglob("*") if each.is_file() and each.name != STATISTICS)
    return sorted(str(each.relative_to(path)) for each in found)


def test_reconstruct_keeps_folders_lengths_and_rates(earvae, folder, small_checkpoint, tmp_path):
    out = tmp_path / "out"
    status, lines = earvae("reconstruct", folder, "--checkpoint", small_checkpoint, "--output-dir", out)
    assert status == 0, lines
    assert outputs(out) == ["a.wav", "album/b.wav", "album/c.wav", "d.wav"]
    for name, source in (("a.wav", "a.wav"), ("album/b.wav", "album/b.flac"), ("d.wav", "d.mp3")):
        audio, rate = read(folder / source)
        result, result_rate = read(out / name)
        assert result.shape == audio.shape and result_rate == rate
    assert "4 done" in lines[-1] and "0 failed" in lines[-1]


def test_finished_outputs_are_kept_unless_told_otherwise(earvae, folder, small_checkpoint, tmp_path):
    call = ("reconstruct", folder, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out")
    assert earvae(*call)[0] == 0
    (tmp_path / "out" / "a.wav").write_bytes(b"mine")
    (tmp_path / "out" / "d.wav").unlink()
    status, lines = earvae(*call)
    assert status == 0 and "1 done" in lines[-1] and "3 already there" in lines[-1]
    assert (tmp_path / "out" / "a.wav").read_bytes() == b"mine"
    assert earvae(*call, "--overwrite")[0] == 0
    assert len(read(tmp_path / "out" / "a.wav")[0]) == 3000


def test_encode_then_decode_is_reconstruct(earvae, folder, small_checkpoint, tmp_path):
    model = ("--checkpoint", small_checkpoint)
    for sampling in ((), ("--latent", "sample", "--seed", "5")):
        assert earvae("encode", folder, *model, "--output-dir", tmp_path / "latents")[0] == 0
        decode = ("decode", tmp_path / "latents", *model, *sampling)
        assert earvae(*decode, "--output-dir", tmp_path / f"decoded{len(sampling)}")[0] == 0
        reconstruct = ("reconstruct", folder, *model, *sampling)
        assert earvae(*reconstruct, "--output-dir", tmp_path / f"direct{len(sampling)}")[0] == 0
        names = outputs(tmp_path / f"direct{len(sampling)}")
        assert len(names) == 4 and outputs(tmp_path / f"decoded{len(sampling)}") == names
        for name in names:
            direct, decoded = (tmp_path / f"{how}{len(sampling)}" / name for how in ("direct", "decoded"))
            # Samples bit for bit; the header of a float WAV holds the time of writing.
            assert read(direct)[1] == read(decoded)[1]
            np.testing.assert_array_equal(read(direct)[0], read(decoded)[0])
    assert (
        read(tmp_path / "direct0" / "a.wav")[0].tobytes() != read(tmp_path / "direct4" / "a.wav")[0].tobytes()
    )


def bad_files(root):
    """Name, what is wrong with it in the message."""
    write(root / "whole.wav", noise(3000), RATE)
    whole = (root / "whole.wav").read_bytes()
    (root / "empty.wav").write_bytes(b"")
    yield "empty.wav", "is empty"
    (root / "text.wav").write_text("no audio at all")
    yield "text.wav", "not readable as audio"
    (root / "garbage.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    yield "garbage.mp3", ""
    write(root / "none.wav", noise(0), RATE)
    yield "none.wav", "holds no samples"
    nan = noise(500)
    nan[7] = np.nan
    write(root / "nan.wav", nan, RATE)
    yield "nan.wav", "2 samples are NaN or infinite, the first at sample 7"
    write(root / "twelve.wav", noise(500, 12), RATE)
    yield "twelve.wav", "12 channels without known loudspeakers"
    (root / "header.wav").write_bytes(whole[:30])
    yield "header.wav", ""
    (root / "list.m3u.mp3").write_text("#EXTM3U\nwhole.wav\n")
    yield "list.m3u.mp3", "is a playlist"
    (root / "broken.wav").symlink_to("nowhere.wav")
    yield "broken.wav", "a broken link"


def test_bad_files_are_named_and_the_others_done(earvae, small_checkpoint, tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    bad = dict(bad_files(root))
    write(root / "one.wav", noise(1), RATE)
    write(root / "high.wav", noise(9000), 192_000)
    write(root / "higher.wav", noise(3), 192_000)
    write(root / "six.wav", noise(500, 6), RATE)
    soundfile.write(root / "short.wav", noise(3000), RATE)
    (root / "short.wav").write_bytes((root / "short.wav").read_bytes()[:4000])
    write(root / "cut.flac", noise(50_000), RATE, format="flac")
    (root / "cut.flac").write_bytes((root / "cut.flac").read_bytes()[:60_000])
    status, lines = earvae("reconstruct", root, "--checkpoint", small_checkpoint, "--output-dir", out)
    assert status == 1
    good = ["cut.wav", "high.wav", "higher.wav", "one.wav", "short.wav", "six.wav", "whole.wav"]
    assert outputs(out) == good
    for name, reason in bad.items():
        assert sum(f"{name}:" in line and reason in line for line in lines) == 1, (name, lines)
    assert not any("Traceback" in line for line in lines)
    assert any("short.wav: cut short" in line for line in lines)
    assert any("cut.flac: cut short" in line and "6.25 s announced" in line for line in lines)
    assert any("six.wav: 6 channels are mixed down" in line for line in lines)
    assert f"{len(bad)} failed" in lines[-1] and len(lines) == len(bad) + len(good) + 4
    assert read(out / "six.wav")[0].shape == (500, 2) and 8000 < len(read(out / "cut.wav")[0]) < 20_000
    assert len(read(out / "high.wav")[0]) == 9000 and len(read(out / "higher.wav")[0]) == 3


def test_inputs_of_one_name_keep_their_endings(earvae, small_checkpoint, tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    lengths = {"a.flac": 300, "a.wav": 500, "b.wav": 400, "more/a.wav": 600, "a.flac.aiff": 200}
    for name, samples in lengths.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, noise(samples), RATE)
    model = ("--checkpoint", small_checkpoint)
    status, lines = earvae("reconstruct", root, *model, "--output-dir", out)
    named = {
        "a.flac": "a.flac.wav",
        "a.wav": "a.wav.wav",
        "b.wav": "b.wav",
        "more/a.wav": "more/a.wav",
        "a.flac.aiff": "a.flac.aiff.wav",
    }
    # The output of a.flac would be that of a.flac.aiff: both get longer names.
    assert (
        status == 0
        and len(outputs(out)) == 5
        and any("another input has the same name" in line for line in lines)
    )
    found = {path: len(read(out / path)[0]) for path in outputs(out)}
    assert sorted(found.values()) == sorted(lengths.values())
    for source in ("a.wav", "b.wav", "more/a.wav"):
        assert found[named[source]] == lengths[source]
    # Files of one name from two folders.
    both = ("encode", root / "a.wav", root / "more" / "a.wav", *model, "--output-dir", tmp_path / "latents")
    assert earvae(*both)[0] == 0 and outputs(tmp_path / "latents") == ["in/a.wav.npz", "more/a.wav.npz"]
    assert earvae(*both)[1][-1].startswith("0 done") and len(outputs(tmp_path / "latents")) == 2


def test_outputs_that_are_inputs_are_refused(earvae, small_checkpoint, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    write(root / "a.wav", noise(500), RATE)
    write(root / "b.flac", noise(300), RATE, format="flac")
    (root / "b.flac.wav").write_bytes((root / "a.wav").read_bytes())
    call = ("reconstruct", root, "--checkpoint", small_checkpoint, "--output-dir", root, "--overwrite")
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    status, lines = earvae(*call)
    assert status == 1
    assert any("a.wav: would be replaced by its own output" in line for line in lines)
    assert all((root / name).read_bytes() == content for name, content in before.items())


def test_a_result_of_another_model_is_not_already_there(earvae, small_checkpoint, tmp_path):
    write(tmp_path / "a.wav", noise(500), RATE)
    other = tmp_path / "other.safetensors"
    checkpoints.save(other, small_models.model(small_models.KINDS["even strides"], seed=1))
    for command, result in (("reconstruct", "a.wav"), ("encode", "a.npz")):
        out = tmp_path / command
        call = (command, tmp_path / "a.wav", "--output-dir", out, "--checkpoint")
        assert earvae(*call, small_checkpoint)[0] == 0
        made = (out / result).read_bytes()
        status, lines = earvae(*call, other)
        assert status == 1 and (out / result).read_bytes() == made
        assert any("a.wav: its output" in line and "made with model" in line for line in lines), lines
        assert earvae(*call, small_checkpoint)[1][-1].endswith("1 already there, 0 failed")
        status, lines = earvae(*call, small_checkpoint, "--dtype", "bfloat16")
        assert status == 1 and any("bfloat16" in line for line in lines)
        assert earvae(*call, other, "--overwrite")[0] == 0 and (out / result).read_bytes() != made


@pytest.mark.parametrize("fate", ["vanishes", "shrinks", "turns to garbage"])
def test_a_file_that_changes_halfway(earvae, small_checkpoint, tmp_path, monkeypatch, fate):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    victim = root / "b.flac" if fate == "turns to garbage" else root / "b.wav"
    for name in ("a.wav", "c.wav"):
        write(root / name, noise(3000), RATE)
    write(victim, noise(400_000), RATE, format=victim.suffix[1:])
    blocks = AudioReader.blocks

    def spoil():
        if fate == "vanishes":
            victim.unlink()
        elif fate == "shrinks":
            with victim.open("r+b") as file:
                file.truncate(700_000)
        else:
            with victim.open("r+b") as file:
                file.seek(300_000)
                file.write(np.random.default_rng(0).bytes(500_000))

    def spoiled(self, size):
        for index, block in enumerate(blocks(self, size)):
            if index == 1 and self.path == victim:
                spoil()
            yield block

    if fate == "vanishes":  # before its turn; an open file stays readable
        monkeypatch.setattr(AudioReader, "__init__", _then(AudioReader.__init__, root / "a.wav", spoil))
    else:
        monkeypatch.setattr(AudioReader, "blocks", spoiled)
    call = ("reconstruct", root, "--checkpoint", small_checkpoint, "--output-dir", out)
    strict = ("--strict",) if fate == "turns to garbage" else ()
    status, lines = earvae(*call, *strict)
    if fate == "shrinks":  # what was there until then is the result
        assert status == 0 and outputs(out) == ["a.wav", "b.wav", "c.wav"]
        assert any("b.wav: cut short; 50.00 s announced" in line for line in lines), lines
        return
    assert status == 1 and outputs(out) == ["a.wav", "c.wav"]
    assert sum(f"{victim.name}: " in line for line in lines) == 1, lines


def _then(function, path, action):
    def wrapped(self, given, **options):
        function(self, given, **options)
        if given == path:
            action()

    return wrapped


def test_a_full_disk_fails_one_file_in_one_line(earvae, small_checkpoint, tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "in" / name, noise(3000), RATE)
    original = soundfile.SoundFile.write

    def full(self, data):
        if "a.wav" in str(self.name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    out = tmp_path / "out"
    call = ("reconstruct", tmp_path / "in", "--checkpoint", small_checkpoint, "--output-dir", out)
    status, lines = earvae(*call)
    assert status == 1 and outputs(out) == ["b.wav"]
    assert any("a.wav: cannot be written: No space left on device" in line for line in lines)


def test_outputs_inside_the_input_folder_are_no_inputs(earvae, small_checkpoint, tmp_path):
    write(tmp_path / "music" / "a.wav", noise(300), RATE)
    out = tmp_path / "music" / "results"
    call = ("reconstruct", tmp_path / "music", "--checkpoint", small_checkpoint, "--output-dir", out)
    assert earvae(*call)[0] == 0 and outputs(out) == ["a.wav"]
    assert earvae(*call)[0] == 0 and outputs(out) == ["a.wav"]


def test_audio_that_the_model_cannot_hold_fails_its_file_alone(earvae, small_checkpoint, tmp_path):
    loud = noise(300)
    loud[100] = 1e30
    write(tmp_path / "in" / "loud.wav", loud, RATE)
    write(tmp_path / "in" / "quiet.wav", noise(300), RATE)
    for command, made in (("reconstruct", "quiet.wav"), ("encode", "quiet.npz")):
        out = tmp_path / command
        call = (command, tmp_path / "in", "--checkpoint", small_checkpoint, "--output-dir", out)
        status, lines = earvae(*call)
        assert status == 1 and outputs(out) == [made]
        assert any("loud.wav" in line and "out of range" in line for line in lines), lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reconstruct", "absent.wav"), "absent.wav: no such file or folder"),
        (("reconstruct", "{tmp}/empty"), "no audio files in"),
        (("reconstruct", "{wav}", "--checkpoint", "{tmp}/none"), "none: no such checkpoint"),
        (("reconstruct", "{wav}", "--checkpoint", "{wav}"), "not a checkpoint of this project"),
        (("reconstruct", "{wav}", "--output-dir", "{wav}/out"), "cannot be made: Not a directory"),
        (("reconstruct", "{wav}", "--batch-size", "0"), "is not a positive number"),
        (("reconstruct", "{wav}", "--dtype", "float8"), "invalid choice: 'float8'"),
        (("reconstruct", "{wav}", "--devices", "99", "--checkpoint", "{model}"), "this machine has"),
        (("reconstruct", "{wav}", "--formulation", "fast"), "invalid choice: 'fast'"),
        (("reconstruct", "{wav}", "--formulation", "fused", "--checkpoint", "{model}"), "this is a CPU"),
        (("reconstruct", "{wav}", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("reconstruct", "{wav}", "--process-id", "0"), "given together or not at all"),
        (
            ("encode", "{wav}", "--output-dir", "{tmp}", "--latent-dtype", "int8"),
            "invalid choice: 'int8'",
        ),
        (("encode", "{wav}"), "--output-dir"),
        (("decode", "{wav}/x", "--output-dir", "{tmp}"), "no such file or folder"),
        (("info", "{tmp}/none"), "none: no such checkpoint"),
        (("info", "{tmp}"), "a folder that holds no checkpoint"),
        (("info", "{tmp}/a\nb"), "a\\nb: no such checkpoint"),
        (("info", "a" * 5000), "aaa: no such checkpoint"),
        (("info", "{wav}", "odd\nword"), "unrecognized arguments: odd\\nword"),
        pytest.param(
            ("convert", "to-torch", "{model}", "a" * 5000),
            "cannot be written: File name too long",
            marks=pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
        ),
        (("train", "--workdir", "{tmp}/run", "--config", "a" * 5000), "aaa: no such config file"),
        (("nonsense",), "invalid choice: 'nonsense'"),
        ((), "COMMAND"),
    ],
)
def test_wrong_calls_are_one_line_and_status_2(earvae, small_checkpoint, tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.wav", noise(300), RATE)
    names = {"tmp": tmp_path, "wav": tmp_path / "a.wav", "model": small_checkpoint}
    status, lines = earvae(*(word.format(**names) for word in words))
    assert status == 2 and len(lines) == 1 and message in lines[0], lines


def test_info_prints_what_the_checkpoint_holds(earvae, small_checkpoint, capsys):
    assert earvae("info", small_checkpoint) == (0, [])
    described = json.loads(capsys.readouterr().out)
    model = checkpoints.load(small_checkpoint)
    assert described["config"] == model.config.to_dict()
    assert described["parameters"]["total"] > described["parameters"]["encoder"] > 0
    assert described["latent_rate_hz"] == RATE / model.config.downsampling_ratio
    assert set(described["receptive_field"]) == {"encoder_samples", "decoder_latents"}


def test_help_waits_for_nothing_heavy():
    script = (
        "import sys, contextlib, io\n"
        "from earvae_jax import command\n"
        "for name in (None, *command._SUBCOMMANDS):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "        command._parse(['earvae', *([name] if name else []), '--help'])\n"
        "    assert 'usage' in out.getvalue(), name\n"
        "heavy = {'jax', 'flax', 'orbax', 'torch', 'soundfile', 'matplotlib', 'grain', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_the_compilation_cache_is_moved_and_switched_off(small_checkpoint, tmp_path, way):
    write(tmp_path / "a.wav", noise(300), RATE)

    def reconstruct(cache, number):
        words = ["reconstruct", tmp_path / "a.wav", "--checkpoint", small_checkpoint]
        words += ["--output-dir", tmp_path / str(number)]
        environment = dict(os.environ, EARVAE_CACHE_DIR=str(tmp_path / "elsewhere"))
        if way == "flag":
            words += ["--compilation-cache", cache]
        else:
            environment["EARVAE_CACHE_DIR"] = str(cache)
        subprocess.run([sys.executable, "-m", "earvae_jax", *map(str, words)], env=environment, check=True)

    reconstruct("off", 0)
    assert not (tmp_path / "elsewhere").exists()
    reconstruct(tmp_path / "cache", 1)
    assert any((tmp_path / "cache").iterdir()) and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate 512 TiB"), "error: out of memory: Unable to allocate 512 TiB"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB\nmore"), "error: out of memory: RESOURCE_EXHAUSTED: 3 GB"),
    ],
)
def test_too_little_memory_is_one_line(earvae, monkeypatch, error, told):
    from earvae_jax.infer.commands import info as info_command

    def run(arguments):
        raise error

    monkeypatch.setattr(info_command, "run", run)
    status, lines = earvae("info")
    assert status == 1 and len(lines) == 1 and lines[0].startswith(f"{told};")


def test_too_little_memory_for_training_names_its_own_options(earvae, monkeypatch):
    from earvae_jax.train import command as train_command

    def run(arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: 3 GB")

    monkeypatch.setattr(train_command, "run", run)
    status, lines = earvae("train", "--config", "train_44k.json", "--workdir", "run")
    assert status == 1 and len(lines) == 1
    assert all(word in lines[0] for word in ("shard_state", "data.batch_size", "accumulate", "rematerialize"))
    assert "--batch-size" not in lines[0]


def test_other_errors_are_one_line_that_says_how_to_see_more(earvae, monkeypatch):
    from earvae_jax.infer.commands import info as info_command

    def run(arguments):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(info_command, "run", run)
    told = "error: RuntimeError: a mistake of ours (unforeseen: EARVAE_DEBUG=1 shows where; please report it)"
    assert earvae("info") == (2, [told])
    monkeypatch.setenv("EARVAE_DEBUG", "1")
    assert any("Traceback" in line for line in earvae("info")[1])
