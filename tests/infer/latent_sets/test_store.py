"""Every latent is in the shards once, whatever was killed and however many processes ran."""

import gc
import json
import tarfile

import latent_items
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from latent_items import settings, write
from tolerances import STATISTICS

from earvae_jax.errors import UserError
from earvae_jax.infer.latent_sets import records, shards
from earvae_jax.infer.latent_sets.collection import open_latents
from earvae_jax.infer.latent_sets.records import INDEX, write_summaries
from earvae_jax.infer.latent_sets.statistics import Statistics
from earvae_jax.infer.latent_sets.store import ShardStore
from earvae_jax.infer.latents import narrowed
from earvae_jax.system import atomic

KINDS = ("webdataset", "arrayrecord")


@pytest.fixture(autouse=True)
def arrayrecord_is_installed():
    pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")


class KilledError(BaseException):
    """No code of ours catches it."""


class Killer:
    """Plays a kill at the n-th moment before or after a call that reaches the disk."""

    POINTS = (
        (shards._TarShard, "_append"),
        (shards._ArrayRecordShard, "add"),
        (shards._ArrayRecordShard, "finish"),
        (shards._TarShard, "finish"),
        (records, "write_record"),
        (atomic, "_flush"),
        (atomic, "_rename"),
        (atomic, "remove_abandoned"),
    )

    def __init__(self, patched: pytest.MonkeyPatch):
        self.left: int | None = None
        patched.setattr(atomic.os, "fsync", lambda _: None)  # thousands of files; the machine stays on
        # What a killed process leaves is removed by the next one, which finds that its writer is dead.
        patched.setattr(atomic, "_is_running", lambda process: False)
        for place, name in self.POINTS:
            patched.setattr(place, name, self._between(getattr(place, name)))
        self._remove = atomic.remove
        patched.setattr(atomic, "remove", lambda path: None if self.dead else self._remove(path))

    @property
    def dead(self) -> bool:
        return self.left == 0

    def _between(self, call):
        def watched(*given, **named):
            self._tick()
            result = call(*given, **named)
            self._tick()
            return result

        return watched

    def _tick(self) -> None:
        if self.left is not None:
            if self.left == 1:
                self.left = 0
            if self.dead:
                raise KilledError
            self.left -= 1

    def run(self, after: int | None, folder, items, made, **options) -> bool:
        """Whether the work was done before the kill came."""
        self.left = after
        store = None
        try:
            store = ShardStore(folder, made, **options)
            process, processes = options["process"], options["processes"]
            for name in list(items)[process::processes]:
                if name not in store.done:
                    store.add(name, latent_items.latents(name, items[name]))
            store.__exit__(None, None, None)
            return True
        except KilledError:
            return False
        finally:
            del store
            gc.collect(1)  # while the dead can remove nothing
            self.left = None


def names_in_shards(folder) -> list[str]:
    """What is in the files themselves."""
    found = []
    for path in folder.glob("latents-*.tar"):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(each))["file"] for each in tar if each.name.endswith(".json")]
    for path in folder.glob("latents-*.arrayrecord"):
        reader = shards.array_record().ArrayRecordReader(str(path))
        for data in reader.read_all():
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            found.append(json.loads(header["__metadata__"]["latents"])["file"])
        reader.close()
    return sorted(found)


def check_whole(folder, items, dtype="float32", holds="mean+std") -> None:
    assert names_in_shards(folder) == sorted(items)
    latents = open_latents(folder)
    assert sorted(item.file for item in latents.items) == sorted(items)
    for number, item in enumerate(latents.items):
        expected = narrowed(latent_items.latents(item.file, items[item.file]), dtype, item.file)
        mean, std = latents.read(number)
        np.testing.assert_array_equal(mean, expected["mean"].astype(np.float32))
        if holds == "mean":
            assert std is None
        else:
            np.testing.assert_array_equal(std, expected["std"].astype(np.float32))
    mean, std = latent_items.stored(items, dtype)
    found = latents.statistics()
    assert found.count == len(mean)
    np.testing.assert_allclose(found.mean, mean.mean(0), rtol=STATISTICS)
    np.testing.assert_allclose(found.covariance, np.cov(mean.T, bias=True), rtol=STATISTICS, atol=STATISTICS)
    np.testing.assert_allclose(found.noise, (std**2).sum(0), rtol=STATISTICS)


runs = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=3), max_size=4)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 90), min_size=1, max_size=9),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    holds=st.sampled_from(["mean", "mean+std"]),
    size=st.sampled_from([1, 3000, 8000, 1e9]),
    killed=runs,
    last=st.integers(1, 3),
)
def test_every_latent_is_there_once(tmp_path_factory, counts, kind, dtype, holds, size, killed, last):
    """Runs of one to three processes, each killed at a moment of its own; then one that nobody kills."""
    folder = tmp_path_factory.mktemp("shards")
    items = {f"album {n % 2}/ö{n}\udcff.wav": count for n, count in enumerate(counts)}
    made = settings(kind, dtype, holds)
    with pytest.MonkeyPatch.context() as patched:
        killer = Killer(patched)
        for moments in killed:
            for process, moment in enumerate(moments):
                options = {"size": size, "process": process, "processes": len(moments)}
                killer.run(moment, folder, items, made, **options)
            named = names_in_shards(folder)
            assert len(named) == len(set(named)), "doubled in a shard that a reader of plain files sees"
        for process in range(last):
            assert killer.run(None, folder, items, made, size=size, process=process, processes=last)
    check_whole(folder, items, dtype, holds)
    write_summaries(folder)
    left = {path.name for path in folder.iterdir()} - {INDEX, records.STATISTICS}
    left -= {path.name for path in records.shards_in(folder)}
    assert left == {path.with_suffix(".json").name for path in records.shards_in(folder)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_moment_at_which_a_shard_ends(kind, tmp_path, monkeypatch):
    """One shard of two items, killed at each moment in turn: it is there whole or not at all."""
    items, killer, moment = {"a": 5, "b": 6}, Killer(monkeypatch), 0
    made, options = settings(kind), {"size": 1e9, "process": 0, "processes": 1}
    done, outcomes = False, set()
    while not done:
        moment += 1
        folder = tmp_path / str(moment)
        folder.mkdir()
        done = killer.run(moment, folder, items, made, **options)
        outcomes.add(tuple(names_in_shards(folder)))
        assert killer.run(None, folder, items, made, **options)
        check_whole(folder, items)
    assert moment > 12 and outcomes == {(), ("a", "b")}


def test_the_index_says_where_everything_is(tmp_path):
    items = {"a.wav": 30, "b/c.wav": 50, "d.wav": 7}
    for kind in KINDS:
        for dtype in ("float32", "bfloat16"):
            folder = tmp_path / f"{kind}-{dtype}"
            write(folder, items, settings(kind, dtype), size=1000)
            write_summaries(folder)
            lines = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
            assert [line["file"] for line in lines] == sorted(items)
            for line in lines:
                assert (line["latents"], line["dim"]) == (items[line["file"]], latent_items.DIM)
                assert line["seconds"] == line["samples"] / line["sample_rate"]
                assert (line["latent_rate_hz"], line["model"]) == (1000.0, latent_items.MODEL)
                expected = narrowed(latent_items.latents(line["file"], line["latents"]), dtype, "")
                if kind == "webdataset":  # as docs/latents.md tells readers without this package
                    for key, offset in (("mean", "offset"), ("std", "std_offset")):
                        shape = (line["latents"], line["dim"])
                        stored = np.memmap(
                            folder / line["shard"], expected["mean"].dtype, "r", line[offset], shape
                        )
                        np.testing.assert_array_equal(stored, expected[key])
            whole = json.loads((folder / records.STATISTICS).read_text())
            assert whole["files"] == 3 and whole["shards"] == 3 and whole["latents"] == 87
            mean, _ = latent_items.stored(items, dtype)
            np.testing.assert_allclose(whole["covariance"], np.cov(mean.T, bias=True), rtol=STATISTICS)


def test_a_shard_ends_where_it_should(tmp_path):
    items = {f"{n}": 100 for n in range(10)}  # 3200 bytes each, and headers
    write(tmp_path, items, size=12_000)
    sizes = [path.stat().st_size for path in records.shards_in(tmp_path)]
    assert len(sizes) in (4, 5) and max(sizes) <= 12_000 + 10_240  # a tar file ends at a multiple of that


def test_the_same_latents_make_the_same_shards(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        write(folder, {"x": 9, "y": 4})
    first, second = (path / "latents-000-00000.tar" for path in (tmp_path / "a", tmp_path / "b"))
    assert first.read_bytes() == second.read_bytes()


def test_other_settings_are_refused(tmp_path):
    write(tmp_path, {"a": 5})
    with pytest.raises(UserError, match=r"00000.tar: was made with .*float32.*; this run uses .*float16"):
        write(tmp_path, {"b": 5}, settings(dtype="float16"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "song.npz").write_bytes(b"")
    with pytest.raises(UserError, match="single files"):
        write(other, {"b": 5})


def test_a_value_that_does_not_fit_concerns_its_item_alone(tmp_path, monkeypatch):
    large = latent_items.latents("large", 5)
    large.mean[2, 1] = 1e6
    told = []
    with ShardStore(
        tmp_path, settings(dtype="float16"), size=1e9, committed=lambda *it: told.append(it)
    ) as store:
        store.add("a", latent_items.latents("a", 5))
        with pytest.raises(UserError, match="too large for float16"):
            store.add("large", large)
        store.add("b", latent_items.latents("b", 5))
        assert not told
    assert told == [(["a", "b"], tmp_path / "latents-000-00000.tar")]


@pytest.mark.parametrize("place", ["_append", "finish"])
def test_a_full_disk_loses_nothing_in_silence(place, tmp_path, monkeypatch):
    lost, done = [], []
    options = {"committed": lambda names, _: done.extend(names), "lost": lambda names, _: lost.extend(names)}
    real, full = getattr(shards._TarShard, place), []

    def write_or_fail(self, *given):
        if full:
            raise OSError(28, "No space left on device")
        return real(self, *given)

    monkeypatch.setattr(shards._TarShard, place, write_or_fail)
    with ShardStore(tmp_path, settings(), size=12_000, **options) as store:
        store.add("a", latent_items.latents("a", 20))
        store.add("b", latent_items.latents("b", 20))
        full.append(True)
        if place == "_append":
            with pytest.raises(UserError, match="shard cannot be written: No space"):
                store.add("c", latent_items.latents("c", 5))
        else:
            with pytest.raises(UserError, match="shard cannot be written: No space"):
                store.add("c", latent_items.latents("c", 300))  # fills the second shard
        full.clear()
        store.add("d", latent_items.latents("d", 20))
    assert (lost, done) == (["a", "b"], ["d"])
    assert names_in_shards(tmp_path) == ["d"] and len(list(tmp_path.iterdir())) == 2


def test_an_interruption_keeps_what_is_whole(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt), ShardStore(tmp_path, settings(), size=1e9) as store:
        store.add("a", latent_items.latents("a", 20))
        raise KeyboardInterrupt
    assert names_in_shards(tmp_path) == ["a"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ShardStore(tmp_path, settings(), size=1e9) as store:
        store.add("b", latent_items.latents("b", 20))
        monkeypatch.setattr(shards._TarShard, "_append", interrupted)
        store.add("c", latent_items.latents("c", 20))  # in the middle of a write
    assert names_in_shards(tmp_path) == ["a"] and len(list(tmp_path.iterdir())) == 2


def test_two_runs_do_not_write_at_once(tmp_path):
    with ShardStore(tmp_path, settings(), size=1e9, process=0, processes=2):
        with ShardStore(tmp_path, settings(), size=1e9, process=1, processes=2):
            pass
        for process, processes in ((0, 2), (0, 1), (2, 3)):
            with pytest.raises(UserError, match=r"another run \(process-000-of-002\) is writing here"):
                ShardStore(tmp_path, settings(), size=1e9, process=process, processes=processes)
    with ShardStore(tmp_path, settings(), size=1e9):
        pass
    assert not list(tmp_path.iterdir())


def test_a_shard_without_its_record_is_named(tmp_path):
    write(tmp_path, {"a": 5})
    (tmp_path / "latents-000-00000.json").unlink()
    for reading in (open_latents, lambda folder: write(folder, {"b": 5})):
        with pytest.raises(UserError, match=r"00000.tar: latents-000-00000.json, .* is missing"):
            reading(tmp_path)


def test_the_summary_of_the_last_process_is_that_of_all(tmp_path, monkeypatch):
    """A shard that another process finishes while the index is written is in the index all the same."""
    write(tmp_path, {"a": 5})
    real = records._write_index

    def meanwhile(path, found):
        if len(found) == 1:
            write(tmp_path, {"a": 5, "b": 6}, process=1, processes=2)
        real(path, found)

    monkeypatch.setattr(records, "_write_index", meanwhile)
    write_summaries(tmp_path)
    assert len((tmp_path / INDEX).read_text().splitlines()) == 2
    assert json.loads((tmp_path / records.STATISTICS).read_text())["latents"] == 11


def test_a_file_in_two_shards_counts_once_in_the_index(tmp_path, caplog):
    write(tmp_path, {"a": 5, "b": 6})
    for suffix in (".tar", ".json"):
        copy = (tmp_path / f"latents-000-00000{suffix}").read_bytes()
        (tmp_path / f"latents-007-00000{suffix}").write_bytes(copy)
    assert [item.file for item in open_latents(tmp_path).items] == ["a", "b"]
    write_summaries(tmp_path)
    assert len((tmp_path / INDEX).read_text().splitlines()) == 2


def test_statistics_of_means_know_the_noise_that_is_not_stored(tmp_path):
    write(tmp_path, {"a": 50}, settings(holds="mean"))
    latents = latent_items.latents("a", 50)
    assert open_latents(tmp_path).statistics().to_dict() == Statistics.of(latents.mean, latents.std).to_dict()
