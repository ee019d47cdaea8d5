"""`earvae encode --shards`, and what `earvae info` says of latents."""

import json
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import small_models
from tolerances import STATISTICS

from earvae_jax import checkpoints
from earvae_jax.audio.reader import read
from earvae_jax.audio.writer import write
from earvae_jax.infer.latent_sets import summaries
from earvae_jax.infer.latent_sets.collection import open_latents
from earvae_jax.infer.latents import read_latents

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 8000
COMMAND = (sys.executable, "-c", "from earvae_jax.command import main; main()")


def make_music(folder, count=6):
    for number in range(count):
        audio = 0.1 * np.random.default_rng(number).standard_normal((3000 + 700 * number, 2), np.float32)
        write(folder / f"album {number % 2}" / f"ü{number}.wav", audio, RATE)
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return make_music(tmp_path_factory.mktemp("music"))


def by_name(place) -> dict:
    latents = open_latents(place)
    found = {item.file: latents.latents(number) for number, item in enumerate(latents.items)}
    assert len(found) == len(latents)
    return found


@pytest.mark.parametrize("kind", ["webdataset", "arrayrecord"])
def test_shards_hold_what_single_files_hold(kind, music, small_checkpoint, tmp_path, earvae):
    if kind == "arrayrecord":
        pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir")
    assert earvae(*call, tmp_path / "files")[0] == 0
    shards = (*call, tmp_path / "shards", "--shards", kind, "--shard-size", 0.02)
    status, lines = earvae(*shards)
    assert status == 0 and lines[-1].startswith("6 done"), lines
    assert sum(" -> " in line and "latents-000-" in line for line in lines) == 6
    files, found = by_name(tmp_path / "files"), by_name(tmp_path / "shards")
    assert (
        sorted(files)
        == sorted(found)
        == sorted(str(path.relative_to(music)) for path in music.rglob("*.wav"))
    )
    for name, latents in files.items():
        np.testing.assert_array_equal(found[name].mean, latents.mean)
        np.testing.assert_array_equal(found[name].std, latents.std)
        assert (found[name].samples, found[name].sample_rate) == (latents.samples, latents.sample_rate)
    status, lines = earvae(*shards)
    assert status == 0 and "0 done" in lines[-1] and "6 already there" in lines[-1]
    more = (*shards[:2], tmp_path / "more", *shards[2:])
    write(tmp_path / "more" / "new.wav", np.full((900, 2), 0.1, np.float32), RATE)
    status, lines = earvae(*more)
    assert status == 0 and "1 done" in lines[-1] and "6 already there" in lines[-1]
    assert len(by_name(tmp_path / "shards")) == 7


@pytest.mark.parametrize("kind", ["webdataset", "arrayrecord"])
def test_shards_are_decoded_as_single_files_are(kind, music, small_checkpoint, tmp_path, earvae):
    if kind == "arrayrecord":
        pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")
    model = ("--checkpoint", small_checkpoint)
    shards, files = tmp_path / "latents" / "shards", tmp_path / "latents" / "files"
    call = ("encode", music, *model, "--output-dir")
    assert earvae(*call, files)[0] == 0
    assert earvae(*call, shards, "--shards", kind, "--shard-size", 0.02)[0] == 0
    sampled = (*model, "--latent", "sample", "--output-dir")
    assert earvae("decode", tmp_path / "latents", *sampled, tmp_path / "both")[0] == 0
    names = sorted(path.relative_to(music) for path in music.rglob("*.wav"))
    for name in names:
        one, other = (read(tmp_path / "both" / place / name) for place in ("files", "shards"))
        assert one[1] == other[1] == RATE
        np.testing.assert_array_equal(one[0], other[0])
    first, *_ = sorted(shards.glob("latents-*[!n]"))
    assert earvae("decode", first, *model, "--output-dir", tmp_path / "some")[0] == 0
    some = {str(path.relative_to(tmp_path / "some")) for path in (tmp_path / "some").rglob("*.wav")}
    assert some == set(by_name(first)) and 0 < len(some) < len(names)


def test_a_shard_that_cannot_be_decoded_fails_alone(music, small_checkpoint, tmp_path, earvae):
    shards, model = tmp_path / "shards", ("--checkpoint", small_checkpoint)
    call = ("encode", music, *model, "--output-dir", shards, "--shards", "webdataset", "--shard-size", 0.02)
    assert earvae(*call)[0] == 0
    gone, odd, cut, *_ = sorted(shards.glob("*.tar"))
    expected = by_name(shards).keys() - by_name(gone).keys() - by_name(cut).keys()
    gone.with_suffix(".json").unlink()
    cut.write_bytes(cut.read_bytes()[:600])
    record = json.loads(odd.with_suffix(".json").read_text())
    outside = "../outside.wav"
    expected -= {record["items"][0]["file"]}
    record["items"][0]["file"] = outside
    odd.with_suffix(".json").write_text(json.dumps(record))
    status, lines = earvae("decode", shards, *model, "--output-dir", tmp_path / "out")
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 3 and "3 failed" in lines[-1], lines
    for shard, said in ((gone, "is missing"), (cut, "cut short"), (odd, f"'{outside}' is not a name inside")):
        assert any(line.startswith(f"error: {shard}") and said in line for line in errors), lines
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.wav")}
    assert made == expected and not (tmp_path / "outside.wav").exists()


def test_webdataset_reads_the_shards(music, small_checkpoint, tmp_path, earvae):
    webdataset = pytest.importorskip("webdataset", reason="the package webdataset reads the shards")
    torch = pytest.importorskip("torch", reason="webdataset needs torch")
    from safetensors.torch import load

    call = ("encode", music, "--checkpoint", small_checkpoint, "--shards", "webdataset", "--shard-size", 0.02)
    for dtype in ("float16", "bfloat16"):
        out = tmp_path / dtype
        assert earvae(*call, "--latent-dtype", dtype, "--output-dir", out)[0] == 0
        expected = by_name(out)
        urls = [str(path) for path in sorted(out.glob("*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        assert sorted(sample["json"]["file"] for sample in samples) == sorted(expected)
        for sample in samples:
            if dtype == "float16":
                mean, std = sample["mean.npy"], sample["std.npy"]
            else:
                arrays = load(sample["safetensors"])
                assert arrays["mean"].dtype == torch.bfloat16
                mean, std = (arrays[key].float().numpy() for key in ("mean", "std"))
            latents = expected[sample["json"]["file"]]
            np.testing.assert_array_equal(mean, latents.mean)
            np.testing.assert_array_equal(std, latents.std)
            assert sample["json"]["samples"] == latents.samples


def test_single_files_in_every_format(music, small_checkpoint, tmp_path, earvae):
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir")
    assert earvae(*call, tmp_path / "exact")[0] == 0
    exact = by_name(tmp_path / "exact")
    for dtype, held, other, rounding in (
        ("float16", "mean+std", "mean", 2**-11),
        ("bfloat16", "mean", "mean+std", 2**-8),
    ):
        out = tmp_path / dtype
        words = (*call, out, "--latent-dtype", dtype, "--latents", held)
        assert earvae(*words)[0] == 0
        for name, latents in by_name(out).items():
            np.testing.assert_allclose(latents.mean, exact[name].mean, rtol=rounding, atol=1e-6)
            assert (latents.std is None) == (held == "mean")
        assert "6 already there" in earvae(*words)[1][-1]
        status, lines = earvae(*words[:-1], other)
        assert status == 1 and "pass --overwrite" in lines[-2]
    path = next((tmp_path / "bfloat16").rglob("*.npz"))
    assert (
        earvae("decode", path, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "audio")[0] == 0
    )
    with np.load(path) as file:  # as the guide says
        bits = file["mean"].view(np.int16)
    read = (bits.astype(np.int32) << 16).view(np.float32)
    np.testing.assert_array_equal(read, read_latents(path).mean)


@pytest.mark.parametrize("sharded", [True, False])
def test_info_tells_what_the_latents_are_like(sharded, music, small_checkpoint, tmp_path, earvae, capsys):
    more = ("--shards", "webdataset", "--shard-size", 0.02) if sharded else ()
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out")
    assert earvae(*call, *more)[0] == 0
    capsys.readouterr()
    assert earvae("info", tmp_path / "out")[0] == 0
    printed = capsys.readouterr().out
    told = json.loads(printed)
    assert len(printed.splitlines()) < 30, "a line for each number"
    mean = np.concatenate([latents.mean for latents in by_name(tmp_path / "out").values()]).astype(np.float64)
    np.testing.assert_allclose(told["mean"], mean.mean(0), rtol=1e-5)
    np.testing.assert_allclose(told["deviation"], mean.std(0), rtol=1e-5)
    assert (told["files"], told["latents"], told["latent_rate_hz"]) == (6, len(mean), 1000.0)
    assert told["kind"] == ("webdataset" if sharded else "files") and 0 <= told["dead_share"] <= 1
    whole = json.loads((tmp_path / "out" / "latent_statistics.json").read_text())
    np.testing.assert_allclose(whole["covariance"], np.cov(mean.T, bias=True), rtol=STATISTICS, atol=1e-12)
    assert (whole["files"], whole["latents"], whole["latent_dim"]) == (6, len(mean), mean.shape[1])
    if sharded:  # of different models, or not: each folder tells of itself
        status, lines = earvae("info", tmp_path)
        assert status == 2 and f"{tmp_path}: its folders hold latents: name one of them, as" in lines[-1]


def test_statistics_of_single_files_follow_the_folder(music, small_checkpoint, tmp_path, earvae, monkeypatch):
    out, model = tmp_path / "out", ("--checkpoint", small_checkpoint)
    folders = sorted(music.iterdir())

    def encode(folder, *more):
        status, lines = earvae("encode", folder, *model, "--output-dir", out / folder.name, *more)
        assert status == 0, lines
        assert earvae("encode", folder, *model, "--output-dir", out, *more)[0] == 0
        return json.loads((out / "latent_statistics.json").read_text()), lines

    told, _ = encode(folders[0])
    assert told["files"] == 6  # three in the folder, and three below it
    with monkeypatch.context() as patched:
        patched.setattr(summaries, "read_header", lambda _: pytest.fail("read again"))
        assert encode(folders[0])[0] == told
    other = small_models.model(small_models.KINDS["even strides"], seed=1)
    checkpoints.save(tmp_path / "other.safetensors", other)
    theirs = ("--checkpoint", tmp_path / "other.safetensors", "--output-dir", out / "theirs")
    assert earvae("encode", folders[0], *theirs)[0] == 0
    (out / "theirs" / "odd.npz").write_bytes(b"no zip")
    (next((out / folders[0].name).glob("*.npz"))).unlink()
    status, lines = earvae("encode", folders[1], *model, "--output-dir", out)
    assert status == 0 and any("leaves out 4 of 12 files" in line for line in lines), lines
    told = json.loads((out / "latent_statistics.json").read_text())
    assert told["files"] == 3 + 2 + 3
    found = [read_latents(path).mean for path in out.rglob("*.npz") if path.parent.name != "theirs"]
    mean = np.concatenate(found).astype(np.float64)
    np.testing.assert_allclose(told["mean"], mean.mean(0), rtol=STATISTICS, atol=1e-12)


def test_a_bad_file_fails_alone(small_checkpoint, tmp_path, earvae):
    music = make_music(tmp_path / "music", 2)
    (music / "bad.wav").write_bytes(b"RIFF no sound")
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir", tmp_path / "out")
    status, lines = earvae(*call, "--shards", "webdataset")
    assert status == 1 and "2 done" in lines[-1] and "1 failed" in lines[-1]
    assert sum("bad.wav" in line for line in lines) == 1 and len(by_name(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shard-size", "5"), "it goes with --shards"),
        ((), "holds latents in shards"),
        (("--shards", "webdataset", "--overwrite"), "take another --output-dir"),
        (("--shards", "webdataset", "--latents", "mean"), "this run uses model"),
    ],
)
def test_calls_that_are_wrong(flags, said, music, small_checkpoint, tmp_path, earvae):
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir", tmp_path)
    assert earvae(*call, "--shards", "webdataset")[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, lines = earvae(*call, *flags)
    assert status == 2 and said in lines[-1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "many"])
def test_sizes_that_are_none(size, music, tmp_path, capsys):
    from earvae_jax import command

    with pytest.raises(SystemExit) as ended:
        command._parse(["earvae", "encode", str(music), "--output-dir", str(tmp_path), "--shard-size", size])
    assert ended.value.code == 2 and "not a positive number of megabytes" in capsys.readouterr().err


def test_the_missing_extra_is_named(music, small_checkpoint, tmp_path, earvae, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    call = ("encode", music, "--checkpoint", small_checkpoint, "--output-dir", tmp_path)
    status, lines = earvae(*call, "--shards", "arrayrecord")
    assert status == 2 and lines[-1].endswith("pip install 'earvae-jax[arrayrecord]'") and len(lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["webdataset", "arrayrecord"])
def test_fifty_files_by_one_two_and_three_processes_with_kills(kind, small_checkpoint, tmp_path):
    if kind == "arrayrecord":
        pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")
    music, out, moments = make_music(tmp_path / "music", 50), tmp_path / "out", random.Random(0)
    call = ("encode", music, "--checkpoint", small_checkpoint, "--shards", kind, "--shard-size", 0.1)
    killed = 0
    for count in (1, 2, 3, 1, 3, 2):
        processes = start(count, *call, "--output-dir", out)
        before = len(list(out.glob("latents-*[!n]")))
        deadline = time.monotonic() + 120
        while len(list(out.glob("latents-*[!n]"))) <= before and any(
            each.poll() is None for each in processes
        ):
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.002)
        time.sleep(moments.random() / 30)
        for process in processes:
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.communicate()
        if out.exists() and any(out.glob("latents-*[!n]")):
            open_latents(out)  # whole at every moment
    assert killed, "every run was over before its kill"
    for processes in (
        start(2, *call, "--output-dir", out),
        start(3, *call[:4], "--output-dir", tmp_path / "files"),
    ):
        printed = [process.communicate(timeout=180)[1] for process in processes]
        assert not any(process.returncode for process in processes), printed
    files, found = by_name(tmp_path / "files"), by_name(out)
    assert len(found) == 50 and sorted(found) == sorted(files)
    for name, latents in files.items():
        np.testing.assert_array_equal(found[name].mean, latents.mean)
        np.testing.assert_array_equal(found[name].std, latents.std)
    index = [json.loads(line)["file"] for line in (out / "index.jsonl").read_text().splitlines()]
    assert sorted(index) == sorted(files)
    mean = np.concatenate([latents.mean for latents in files.values()]).astype(np.float64)
    for folder in (out, tmp_path / "files"):
        told = json.loads((folder / "latent_statistics.json").read_text())
        assert told["latents"] == len(mean)
        np.testing.assert_allclose(told["mean"], mean.mean(0), rtol=STATISTICS, atol=1e-12)
        np.testing.assert_allclose(told["covariance"], np.cov(mean.T, bias=True), rtol=STATISTICS, atol=1e-12)
        assert not list(folder.glob(".*")), "temporaries are left"


def start(count: int, *words) -> list[subprocess.Popen]:
    """One run of so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = []
    for index in range(count):
        more = ("--coordinator", coordinator, "--num-processes", count, "--process-id", index)
        given = (*words, *(more if count > 1 else ()))
        processes.append(subprocess.Popen([*COMMAND, *map(str, given)], stderr=subprocess.PIPE, text=True))
    return processes
