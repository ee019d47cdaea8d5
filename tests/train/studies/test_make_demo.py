"""What the bundled model says about its training: packages and licences, and no folder of a machine."""

import json

import pytest

from earvae_jax.errors import UserError
from earvae_jax.train.studies.make_demo import described


def provenance(*train):
    return {
        "trained_steps": 7,
        "training_config": {"seed": 0, "data": {"train": list(train), "validation": []}},
    }


@pytest.fixture
def music(tmp_path):
    packages = [("a", "train"), ("b", "held_out"), ("c", "train")]
    manifest = {
        "packages": [
            {"package": p, "version": "1", "split": s, "hours": 2.0, "files": 1} for p, s in packages
        ],
        "files": [{"package": p, "licence": licence} for p in "abc" for licence in ("Y", "X", "X")],
    }
    (tmp_path / "train").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_music_is_named_by_package_and_licence(music):
    found = described(provenance(str(music / "train")), music)
    assert [each["package"] for each in found["data"]] == ["a", "c"]
    assert found["data"][0] == {"package": "a", "version": "1", "hours": 2.0, "licences": ["X", "Y"]}
    assert found["training_config"]["data"]["train"] == ["train"] and found["trained_steps"] == 7
    assert str(music) not in json.dumps(found)


def test_folders_of_a_machine_are_refused(music, tmp_path):
    for place in (None, music):
        with pytest.raises(UserError, match="not in --music"):
            described(provenance(str(tmp_path.parent / "other")), place)


def test_synthetic_music_needs_no_manifest():
    assert described(provenance(), None)["data"] == []
