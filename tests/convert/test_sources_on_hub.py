"""Repositories of the Hub as sources of weights, against a small stand-in for it."""

import json
import subprocess
import sys

import family
import hub as stand_in
import pytest

ACE = "diffusers_acestep_tiny"
PROGRAM = """
import json, sys
from earvae_jax.convert import from_torch
from earvae_jax.errors import UserError
try:
    weights = from_torch.read(sys.argv[1])
    print(json.dumps([weights.config.sample_rate, from_torch.provenance(weights)]))
except UserError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def hub(tmp_path):
    """Reads a source in a fresh process: rate and provenance, or the error, and the requests made."""
    folder = family.folder(ACE)
    weights, config = (
        (folder / name).read_bytes() for name in ("diffusion_pytorch_model.safetensors", "config.json")
    )
    at_other_rate = json.dumps({**json.loads(config), "sampling_rate": 32_000}).encode()
    repositories = {
        "owner/pipeline": {
            "vae/diffusion_pytorch_model.safetensors": weights,
            "vae/config.json": at_other_rate,
            "model.safetensors": b"a generator of gigabytes",
            "config.json": b'{"model_type": "t5"}',
        },
        "owner/comfy": {"split_files/vae/vae.safetensors": weights, "split_files/unet/unet.safetensors": b""},
        "owner/none": {"README.md": b""},
        "owner/gated": {"model.safetensors": weights},
    }
    with stand_in.serving(repositories, gated=("owner/gated",)) as (surroundings, requests):

        def read(source, **environment):
            requests.clear()
            words = [sys.executable, "-c", PROGRAM, source]
            environment = {**surroundings, "HF_HOME": str(tmp_path / "hub"), **environment}
            run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
            return json.loads(run.stdout.splitlines()[-1]), list(requests)

        yield read


@pytest.mark.parametrize("path", ["", "/vae", "/vae/diffusion_pytorch_model.safetensors"])
def test_weights_and_the_json_beside_them_are_fetched_once(hub, path):
    address = f"hf://owner/pipeline{path}"
    (rate, provenance), requests = hub(address)
    assert rate == 32_000 and provenance["source_config"] == "config.json"
    assert provenance["source"] == "hf://owner/pipeline/vae/diffusion_pytorch_model.safetensors"
    assert not any("resolve/main/model.safetensors" in request for request in requests)
    assert hub(address, HF_HUB_OFFLINE="1") == ([rate, provenance], [])


def test_a_lone_file_deep_in_a_repository(hub):
    (rate, provenance), _ = hub("hf://owner/comfy")
    assert rate == 48_000 and "source_config" not in provenance
    assert provenance["source"] == "hf://owner/comfy/split_files/vae/vae.safetensors"


def test_what_cannot_be_had_is_one_clear_line(hub):
    (message, _), (listed, _), (absent, _) = (
        hub("hf://owner/gated/model.safetensors"), hub("hf://owner/gated"), hub("hf://owner/absent"),
    )  # fmt: skip
    for line in (message, listed):
        assert "owner/gated is gated" in line and "https://huggingface.co/owner/gated" in line
        assert "hf auth login" in line and "HF_TOKEN" in line
    assert "there is no public repository owner/absent" in absent
    assert "a repository without a weights file" in hub("hf://owner/none")[0]
    assert "cannot be reached" in hub("hf://owner/pipeline@v2", HF_HUB_OFFLINE="1")[0]
