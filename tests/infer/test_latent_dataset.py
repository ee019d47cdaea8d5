"""Crops of latents: their values, their mask, their order; batches that resume bit for bit."""

import json
import pickle

import latent_items
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earvae_jax.errors import UserError
from earvae_jax.infer.latent_dataset import LatentCrops, latent_batches, open_latents
from earvae_jax.infer.latent_sets.records import write_summaries
from earvae_jax.infer.latents import write_latents

ITEMS = {f"{number}.wav": count for number, count in enumerate((5, 64, 33, 1, 17, 100))}
RATES = {"model_sample_rate": latent_items.RATE, "downsampling_ratio": latent_items.RATIO}
KINDS = ("webdataset", "arrayrecord", "files")


def make(folder, kind, dtype="float32"):
    if kind == "files":
        for name, count in ITEMS.items():
            path = folder / "deep" / f"{name}.npz"
            write_latents(path, latent_items.latents(name, count), dtype=dtype, metadata=RATES)
    else:
        latent_items.write(folder, ITEMS, latent_items.settings(kind, dtype), size=3000)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")
    return {kind: make(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    length=st.integers(1, 120),
    number=st.integers(0, 200),
    seed=st.integers(0, 5),
    normalize=st.booleans(),
)
def test_a_crop_is_a_piece_of_an_item(folders, kind, length, number, seed, normalize):
    crops = LatentCrops(folders[kind], length, seed=seed, normalize=normalize)
    crop = crops[number]
    item = latent_items.latents(crop["file"], ITEMS[crop["file"]])
    here = min(length, len(item.mean))
    assert crop["latents"].shape == (length, latent_items.DIM) and crop["latents"].dtype == np.float32
    assert crop["mask"].tolist() == [True] * here + [False] * (length - here)
    assert not crop["latents"][here:].any()
    expected = item.mean[crop["start"] : crop["start"] + here]
    assert len(expected) == here
    if normalize:
        np.testing.assert_allclose(crops.restored(crop["latents"])[:here], expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(crop["latents"][:here], expected)
    assert (crop["sample_rate"], crop["channels"]) == (latent_items.RATE, 2)
    assert crop["start_seconds"] < crop["seconds"] == item.samples / latent_items.RATE


def test_all_kinds_of_collections_give_the_same(folders):
    first, *others = (LatentCrops(folders[kind], 16, seed=3, sample=True) for kind in KINDS)
    for number in range(2 * len(first)):
        for other in others:
            for key, value in first[number].items():
                # The sums of shards are merged in another order than those of files.
                if key == "latents":
                    np.testing.assert_allclose(other[number][key], value, rtol=1e-5, atol=1e-6)
                else:
                    np.testing.assert_array_equal(other[number][key], value)


def test_an_epoch_has_each_item_as_often_as_it_is_long(folders):
    crops = LatentCrops(folders["webdataset"], 16)
    assert len(crops) == sum(max(1, count // 16) for count in ITEMS.values())
    epochs = [[crops[epoch * len(crops) + n]["file"] for n in range(len(crops))] for epoch in range(3)]
    for epoch in epochs:
        assert {name: epoch.count(name) for name in ITEMS} == {n: max(1, c // 16) for n, c in ITEMS.items()}
    assert epochs[0] != epochs[1] != epochs[2]
    with pytest.raises(IndexError):
        crops[-1]


def test_normalised_crops_have_deviation_one(folders):
    for sample in (False, True):
        crops = LatentCrops(folders["webdataset"], 1, sample=sample)
        drawn = np.concatenate([crops[number]["latents"] for number in range(20 * len(crops))])
        spread = 3 / np.sqrt(len(crops))
        np.testing.assert_allclose(drawn.mean(0), 0, atol=spread)
        np.testing.assert_allclose(drawn.std(0), 1, atol=spread)


def test_samples_are_drawn_anew(folders):
    options = {"normalize": False, "sample": True}
    crops = LatentCrops(folders["webdataset"], 200, **options)
    of_one = [crops[number] for number in range(60 * len(crops))]
    of_one = np.stack([crop["latents"][:64] for crop in of_one if crop["file"] == "1.wav"])
    item = latent_items.latents("1.wav", 64)
    deviations = (of_one - item.mean) / item.std
    assert abs(deviations.mean()) < 0.05 and abs(deviations.std() - 1) < 0.05
    np.testing.assert_array_equal(
        crops[7]["latents"], LatentCrops(crops.latents, 200, **options)[7]["latents"]
    )


def test_dimensions_that_never_change_stay_finite(tmp_path):
    latents = latent_items.latents("a", 9)
    latents.mean[:, 2] = 5
    write_latents(tmp_path / "a.npz", latents)
    crop = LatentCrops(tmp_path, 9)[0]["latents"]
    assert np.isfinite(crop).all() and not crop[:, 2].any()


def same(one, other) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


@settings(max_examples=10, deadline=None)
@given(kind=st.sampled_from(KINDS), done=st.integers(0, 12), batch_size=st.integers(1, 7))
def test_batches_resume_bit_for_bit(folders, kind, done, batch_size):
    pytest.importorskip("grain", reason="batches need the extra train")

    def begun():
        return latent_batches(LatentCrops(folders[kind], 12, seed=1, sample=True), batch_size, threads=3)

    whole = begun()
    for _ in range(done):
        next(whole)
    state = json.loads(json.dumps(whole.get_state()))
    resumed = begun()
    resumed.set_state(state)
    for _ in range(5):
        same(next(whole), next(resumed))


def test_the_processes_share_a_batch(folders):
    pytest.importorskip("grain", reason="batches need the extra train")
    crops = LatentCrops(folders["webdataset"], 12, sample=True)
    whole = latent_batches(crops, 6)
    parts = [latent_batches(crops, 6, process_index=index, process_count=3) for index in range(3)]
    for _ in range(4):
        batch = [next(part) for part in parts]
        same(next(whole), {key: np.concatenate([part[key] for part in batch]) for key in batch[0]})
    with pytest.raises(UserError, match="cannot be split over 4"):
        latent_batches(crops, 6, process_count=4)


def test_torch_loads_crops(folders):
    torch = pytest.importorskip("torch")
    for kind in KINDS:
        crops = pickle.loads(pickle.dumps(LatentCrops(folders[kind], 12)))
        loader = torch.utils.data.DataLoader(crops, batch_size=4)
        seen = list(loader)
        assert sum(len(batch["file"]) for batch in seen) == len(crops)
        np.testing.assert_array_equal(seen[0]["latents"][1].numpy(), crops[1]["latents"])


def test_several_folders_are_one_collection(folders, tmp_path):
    more = tmp_path / "more"
    latent_items.write(more, {"more.wav": 40})
    together = open_latents([folders["webdataset"], more])
    assert len(together) == len(ITEMS) + 1 and together.kind == "webdataset"
    assert together.statistics().count == sum(ITEMS.values()) + 40
    mixed = open_latents([folders["files"], more])
    assert mixed.kind == "mixed" and mixed.statistics().count == sum(ITEMS.values()) + 40
    other = latent_items.latents("other", 4)
    object.__setattr__(other, "model", "f" * 16)
    write_latents(tmp_path / "other" / "other.npz", other)
    with pytest.raises(UserError, match="other: latents of another model"):
        open_latents([more, tmp_path / "other"])
    write_latents(tmp_path / "other" / "mine.npz", latent_items.latents("mine", 4))
    with pytest.raises(UserError, match=r"other\.npz: latents of another model"):
        open_latents(tmp_path / "other")


def test_what_cannot_be_is_said_in_one_line(folders, tmp_path):
    with pytest.raises(UserError, match="at least one latent"):
        LatentCrops(folders["files"], 0)
    means = tmp_path / "means"
    latent_items.write(means, {"a": 9}, latent_items.settings(holds="mean"))
    with pytest.raises(UserError, match="no std to sample with: encode with --latents"):
        LatentCrops(means, 4, sample=True)
    with pytest.raises(UserError, match="no such file or folder"):
        LatentCrops(tmp_path / "nowhere", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no latents in"):
        LatentCrops(tmp_path / "empty", 4)


@pytest.mark.parametrize("kind", ["webdataset", "arrayrecord"])
def test_a_shard_that_was_cut_is_named(kind, tmp_path):
    pytest.importorskip("array_record", reason="ArrayRecord files need the extra arrayrecord")
    latent_items.write(tmp_path, {"a": 300}, latent_items.settings(kind))
    (shard,) = tmp_path.glob("latents-*[!n]")
    data = shard.read_bytes()
    shard.write_bytes(data[:5000])
    with pytest.raises(UserError, match=rf"{shard.name}: cut short: .* encode again"):
        LatentCrops(tmp_path, 200)
    if kind == "arrayrecord":  # its blocks have checksums; a tar file's numbers have none
        shard.write_bytes(data[:9000] + bytes(200) + data[9200:])
        with pytest.raises(UserError, match=rf"{shard.name}: a cannot be read from it"):
            [LatentCrops(tmp_path, 300)[number] for number in range(3)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_record_is_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    latent_items.write(folder, {"a": 9, "b": 5})
    (record,) = folder.glob("latents-*.json")
    found = json.loads(record.read_text())
    part = data.draw(st.sampled_from([found, found["settings"], *found["items"], found["statistics"]]))
    key = data.draw(st.sampled_from(sorted(part)))
    odd = [None, -1, 0, 10**18, 1.5, "x", [], {}, [[]], True, float("nan")]
    part[key] = data.draw(st.sampled_from(odd))
    if data.draw(st.booleans()):
        del part[key]
    record.write_text(json.dumps(found))
    try:
        crops = LatentCrops(folder, 4)
        for number in range(6):
            crops[number]
        write_summaries(folder)
    except UserError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
