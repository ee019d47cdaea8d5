"""`earvae push`: the page it writes, and the upload, against a small stand-in for the Hub."""

import dataclasses
import json
import subprocess
import sys

import hub as stand_in
import pytest
import small_models

from earvae_jax import checkpoints
from earvae_jax.convert.push.card import model_card, read_metrics
from earvae_jax.convert.push.upload import repository, without_folders
from earvae_jax.errors import UserError
from earvae_jax.infer.evaluation.evaluate import Evaluation, write_results
from earvae_jax.model.config import ModelConfig

PROVENANCE = {
    "trained_steps": 7200,
    "commit": "7a0bfc0",
    "training_config": {"data": {"train": ["/home/me/music", "more"], "validation": [], "seed": 1}},
    "data": [{"package": "some-music", "version": "1.0", "hours": 1.5, "licences": ["CC-BY-4.0"]}],
}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "mine.safetensors"
    checkpoints.save(path, small_models.model(small_models.config((2, 4))), provenance=PROVENANCE)
    return path


@pytest.fixture
def earvae(tmp_path):
    """How to run the command beside a Hub that already holds a model, and what the Hub holds."""
    repositories = {"owner/taken": {"README.md": b"theirs", "model.safetensors": b"theirs"}}
    with stand_in.serving(repositories) as (surroundings, _):

        def run(*words, token=stand_in.TOKEN):
            environment = {**surroundings, "HF_HOME": str(tmp_path / "hub")} | (
                {"HF_TOKEN": token} if token else {}
            )
            environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
            command = [sys.executable, "-m", "earvae_jax", *map(str, words)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        yield run, repositories


def test_what_was_pushed_is_a_checkpoint_for_everybody(earvae, checkpoint):
    run, repositories = earvae
    pushed = run("push", checkpoint, "hf://owner/new", "--licence", "cc-by-4.0", "--data", "my own songs")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout == f"https://huggingface.co/owner/new/commit/{'a' * 40}\n"
    card = repositories["owner/new"]["README.md"].decode()
    assert "license: cc-by-4.0" in card and "my own songs" in card and "some-music 1.0" in card

    described = run("info", "hf://owner/new", token=None)
    assert described.returncode == 0, described.stderr
    described = json.loads(described.stdout)
    assert described["fingerprint"] == checkpoints.read_info(checkpoint).fingerprint
    assert described["provenance"]["training_config"]["data"]["train"] == ["music", "more"]
    assert b"/home/me" not in repositories["owner/new"]["model.safetensors"]


def test_a_model_that_is_there_is_replaced_only_when_asked(earvae, checkpoint):
    run, repositories = earvae
    refused = run("push", checkpoint, "hf://owner/taken", "--licence", "other")
    assert refused.returncode == 2 and "--overwrite" in refused.stderr
    assert repositories["owner/taken"]["README.md"] == b"theirs"
    assert run("push", checkpoint, "hf://owner/taken", "--licence", "other", "--overwrite").returncode == 0
    assert b"license: other" in repositories["owner/taken"]["README.md"]


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_who_may_not_write_learns_how_to_log_in(earvae, checkpoint, token):
    run, repositories = earvae
    refused = run("push", checkpoint, "hf://owner/new", "--licence", "other", token=token)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "hf auth login" in refused.stderr and "as owner" in refused.stderr
    assert "owner/new" not in repositories


def test_a_dry_run_prints_the_page_and_asks_nobody(earvae, checkpoint):
    run, repositories = earvae
    printed = run("push", checkpoint, "hf://owner/new", "--licence", "mit", "--dry-run", token=None)
    assert printed.returncode == 0 and "license: mit" in printed.stdout
    assert "owner/new" not in repositories


def test_the_page_says_what_the_model_is_and_reaches(tmp_path, checkpoint):
    write_results(Evaluation("mine", [], {}), tmp_path)
    path = tmp_path / "evaluation_results.json"
    results = json.loads(path.read_text())
    path.write_text(
        json.dumps(results | {"avg_sisdr": 8.325, "avg_per_channel_coherence": 0.98, "file_count": 59})
    )
    info = checkpoints.read_info(checkpoint)
    card = model_card("owner/some-model", info, licence="cc-by-4.0", metrics=read_metrics(path))
    assert "# some-model" in card and "8 samples become one latent" in card
    assert "| SI-SDR, dB | 8.32 |" in card and "98.00%" in card and "| pieces | 59 |" in card
    assert "mel" not in card.partition("## Config")[0]  # undefined
    config = card.partition("```json\n")[2].partition("```")[0]
    assert ModelConfig.from_dict(json.loads(config)) == info.config
    assert "--checkpoint hf://owner/some-model" in card and info.fingerprint in card
    without = model_card("owner/m", dataclasses.replace(info, provenance={}), licence="mit")
    assert "## Training" not in without and "reaches" not in without


def test_only_the_names_of_folders_go_out():
    cleaned = without_folders(PROVENANCE)["training_config"]["data"]
    assert cleaned == {"train": ["music", "more"], "validation": [], "seed": 1}
    assert PROVENANCE["training_config"]["data"]["train"][0] == "/home/me/music"
    assert without_folders({}) == {}


@pytest.mark.parametrize("address", ["mine", "hf://owner", "hf://owner/model/file.safetensors", "s3://a/b"])
def test_what_is_no_repository_is_named(address):
    with pytest.raises(UserError, match=address):
        repository(address)


@pytest.mark.parametrize("text", ["{}", "[]", '{"file_count": 3}', "{"])
def test_other_files_than_an_evaluation_are_named(tmp_path, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_metrics(path)
