"""Models that have a name: one table, and every way to use a name, against a stand-in for the Hub."""

import json
import re
import shutil
import subprocess
import sys
import types

import family
import hub as stand_in
import numpy as np
import pytest
from huggingface_hub import errors
from places import ROOT

import earvae_jax
from earvae_jax import checkpoints, known_models
from earvae_jax.audio.writer import write
from earvae_jax.convert import cached, fetch, sources
from earvae_jax.convert.published import PUBLISHED
from earvae_jax.errors import UserError
from earvae_jax.parameters import fingerprint, named_arrays

pytestmark = pytest.mark.usefixtures("quick_compilation")

ACE, YUE = "diffusers_acestep_tiny", "yue2_tiny"
NAMES = [known.name for known in known_models.KNOWN_MODELS]
# Loads models by name in one process, with a token where one stands before the name: prints what they are, or
# errors.
LOAD = """
import json, os, sys
from earvae_jax import checkpoints
from earvae_jax.errors import UserError
said = []
for word in sys.argv[1:]:
    token, _, name = word.rpartition("=")
    os.environ["HF_TOKEN"] = token
    try:
        said.append(checkpoints.load_with_info(name)[1].to_dict())
    except UserError as error:
        said.append(str(error))
print(json.dumps(said))
"""
REFUSALS = {
    "hf_of_somebody_who_did_not_accept": (
        403,
        {"X-Error-Code": "GatedRepo", "X-Error-Message": "not listed"},
    ),
    "hf_of_limited_scope": (403, {}),
    "hf_expired": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
}
# Dies while it writes the checkpoint.
KILLED = """
import os, pathlib, signal, sys
import earvae_jax

def half(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.write_bytes = half
earvae_jax.load(sys.argv[1])
"""


@pytest.fixture(scope="module")
def files():
    """What lies on the Hub: small models where the published ones are."""
    ace = {f"vae/{path.name}": path.read_bytes() for path in family.folder(ACE).iterdir()}
    yue = {path.name: path.read_bytes() for path in family.folder(YUE).iterdir()}
    return {
        "ACE-Step/Ace-Step1.5": {**ace, "acestep-v15-turbo/model.safetensors": b"a generator"},
        "m-a-p/YuE2-Vae": yue,
        "stabilityai/stable-audio-open-1.0": {**ace, "model.safetensors": b"a generator"},
    }


@pytest.fixture
def run(files, tmp_path):
    """Runs a program in a process of its own with the caches of a test; returns what it wrote to stdout."""
    with stand_in.serving(files, ("stabilityai/stable-audio-open-1.0",), REFUSALS) as (
        surroundings,
        requests,
    ):
        places = {"HF_HOME": str(tmp_path / "hub"), "EARVAE_CACHE_DIR": str(tmp_path / "cache")}

        def start(*words, **environment):
            environment = {**surroundings, **places, **environment}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return subprocess.Popen([sys.executable, *words], env=environment, cwd=tmp_path, **pipes)

        def run(*words, **environment):
            requests.clear()
            process = start(*words, **environment)
            printed, run.errors = process.communicate()
            run.status, run.requests = process.returncode, list(requests)
            return printed

        run.start = start
        yield run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EARVAE_CACHE_DIR", str(tmp_path / "cache"))
    known_models._say_that_a_file_comes_first.cache_clear()
    return tmp_path


def load(run, *names, **environment):
    return json.loads(run("-c", LOAD, *names, **environment).splitlines()[-1])


def expected(name):
    return fingerprint(named_arrays(family.model(name)))


def test_the_table():
    assert len(set(NAMES)) == len(NAMES)
    for known in known_models.KNOWN_MODELS:
        address = sources.known_address(known)
        assert str(address) == known.address and address.text == known.name and address.path
        assert known.page == f"https://huggingface.co/{address.repo}"
        assert re.fullmatch(r"[a-z0-9.-]+", known.name) and known.licence
        assert (ROOT / "configs" / f"{known.config_name}.json").is_file()
    rates = {
        known.name: (
            known.config.sample_rate,
            round(known.config.sample_rate / known.config.downsampling_ratio, 2),
        )
        for known in known_models.KNOWN_MODELS
    }
    assert rates == {
        "ear-vae-44k": (44_100, 43.07),
        "ear-vae-48k": (48_000, 50.0),
        "ace-step-1.5": (48_000, 25.0),
        "stable-audio-open-1.0": (44_100, 21.53),
        "stable-audio-open-small": (44_100, 21.53),
        "tangoflux": (44_100, 21.53),
        "yue2": (48_000, 25.0),
        "yue2-legacy": (48_000, 25.0),
    }
    assert {published.name for published in PUBLISHED} <= {
        known.config_name for known in known_models.KNOWN_MODELS
    }


def test_the_documentation_has_the_table():
    text = (ROOT / "docs" / "conversion.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("`"): row for row in rows}
    for known in known_models.KNOWN_MODELS:
        _, _, rate, latents, licence, *needs = documented[known.name]
        assert (
            rate == f"{known.config.sample_rate:,} Hz".replace(",", " ")
            and licence.strip(" |") == known.licence
        )
        assert latents == f"{known.config.sample_rate / known.config.downsampling_ratio:.2f}".rstrip(
            "0"
        ).rstrip(".")
        assert needs == (["login"] if known.is_gated else ["torch"] if known.needs_torch else [])


def test_a_name_is_fetched_and_converted_once(run, tmp_path):
    ace, yue = load(run, "ace-step-1.5", "yue2")
    assert [ace["fingerprint"], yue["fingerprint"]] == [expected(ACE), expected(YUE)]
    assert ace["provenance"]["source"] == known_models.by_name("ace-step-1.5").address
    assert ace["provenance"]["source_config"] == yue["provenance"]["source_config"] == "config.json"
    assert not any("/tree/" in path for path in run.requests)
    asked = {path.partition("/resolve/main/")[2] for path in run.requests} - {""}
    assert asked == {  # no list, and no file besides
        "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "config.json", "model.safetensors",
    }  # fmt: skip

    # From the Hub's cache, into an empty cache of ours.
    assert load(run, "ace-step-1.5", HF_HUB_OFFLINE="1", EARVAE_CACHE_DIR=str(tmp_path / "other")) == [ace]
    # The other way round, with a Hub that does not answer.
    nobody = {"HF_HOME": str(tmp_path / "nowhere"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert load(run, "ace-step-1.5", "yue2", **nobody) == [ace, yue]
    assert not run.requests


def test_without_the_hub_and_without_a_cache_it_is_one_line(run):
    (line,) = load(run, "ace-step-1.5", HF_HUB_OFFLINE="1")
    assert line == (
        "ace-step-1.5: the Hugging Face Hub cannot be reached (HF_HUB_OFFLINE is set), and config.json is "
        "not in its cache: download it elsewhere and pass its path"
    )


def test_what_goes_wrong_on_the_way_is_told_from_what_the_hub_answers():
    remote = sources.known_address(known_models.by_name("yue2"))

    def told(raised, cause=None):
        with pytest.raises(UserError) as caught, fetch._explaining(remote, cached_only=False):
            raise raised from cause
        assert "\n" not in str(caught.value)
        return str(caught.value)

    not_here = errors.LocalEntryNotFoundError("not here")
    assert "cannot be reached (Connection refused), and model.safetensors is not" in told(
        not_here, ConnectionError(111, "Connection refused")
    )
    assert told(OSError(28, "No space left on device")).endswith(
        "cannot be fetched (No space left on device)"
    )
    unavailable = OSError("503 Server Error")
    unavailable.response = types.SimpleNamespace(status_code=503)
    assert "answers with HTTP 503" in told(not_here, unavailable)


def test_what_is_gated_says_how_to_log_in(run):
    name = "stable-audio-open-1.0"
    lines = load(run, name, *(f"{token}={name}" for token in REFUSALS))
    assert len(lines) == 4
    for line in lines:
        assert "\n" not in line and line.startswith(f"{name}: ")
        for words in ("gated", "accept its licence at", "hf auth login", "HF_TOKEN"):
            assert words in line
        assert "https://huggingface.co/stabilityai/stable-audio-open-1.0" in line
    assert ["HTTP 40" in line for line in lines] == [False, False, True, True]
    (given,) = load(run, f"{stand_in.TOKEN}={name}")
    assert given["fingerprint"] == expected(ACE)


def test_commands_take_a_name(run, tmp_path):
    printed = run("-m", "earvae_jax", "info", "stable-audio-open-1.0", HF_TOKEN=stand_in.TOKEN)
    assert run.status == 0 and json.loads(printed)["fingerprint"] == expected(ACE)
    assert "licence of its weights is Stability AI" in run.errors
    run("-m", "earvae_jax", "convert", "from-torch", "ace-step-1.5", "out")
    assert run.status == 0 and checkpoints.read_info(tmp_path / "out").fingerprint == expected(ACE)
    listed = {each["name"]: each for each in json.loads(run("-m", "earvae_jax", "models", "--json"))}
    assert list(listed) == NAMES and not run.requests
    converted, fetched, other = (listed[name] for name in ("stable-audio-open-1.0", "ace-step-1.5", "yue2"))
    assert converted["is_fetched"] and checkpoints.read_info(converted["checkpoint"])
    assert fetched["is_fetched"] and fetched["checkpoint"] is None
    assert not other["is_fetched"] and other["licence"].startswith("CC BY-NC 4.0")
    table = run("-m", "earvae_jax", "models").splitlines()
    place = table[0].index("cache")
    assert [line[place:].split()[0] for line in table[3:5]] == ["fetched", "converted"]


def test_a_song_through_a_name(here, earvae):
    place = cached.place_of(known_models.by_name("ace-step-1.5"))
    checkpoints.save(place, family.model(ACE))
    write(here / "song.wav", np.zeros((4000, 2), np.float32), 48_000)
    status, lines = earvae("reconstruct", "song.wav", "--checkpoint", "ace-step-1.5", "--output-dir", "out")
    assert status == 0 and (here / "out" / "song.wav").is_file(), lines


def test_a_conversion_that_is_killed_leaves_nothing_half_written(run, tmp_path):
    run("-c", KILLED, "yue2")
    assert run.status != 0 and run.requests
    models = tmp_path / "cache" / "models"
    assert not list(models.glob("*.safetensors"))
    (yue,) = load(run, "yue2")
    assert yue["fingerprint"] == expected(YUE)
    assert [path.name for path in models.iterdir()] == [
        path.name for path in models.glob("yue2-*.safetensors")
    ]


def test_two_processes_at_once_do_no_harm(run, tmp_path):
    both = [run.start("-c", LOAD, "yue2") for _ in range(2)]
    for process in both:
        printed, errors = process.communicate()
        assert process.returncode == 0, errors
        assert json.loads(printed.splitlines()[-1])[0]["fingerprint"] == expected(YUE)
    (kept,) = (tmp_path / "cache" / "models").iterdir()
    assert checkpoints.read_info(kept).fingerprint == expected(YUE)


@pytest.mark.parametrize("kind", ["checkpoint", "weights"])
def test_what_has_the_name_in_the_working_directory_comes_first(here, kind, caplog):
    if kind == "checkpoint":
        checkpoints.save("ace-step-1.5", family.model(YUE))
    else:
        shutil.copytree(family.folder(YUE), "ace-step-1.5", copy_function=shutil.copyfile)
    with caplog.at_level("INFO", logger="absl"):
        assert earvae_jax.load("ace-step-1.5").config == family.model(YUE).config
        assert earvae_jax.load(here / "ace-step-1.5").config == family.model(YUE).config
    assert caplog.text.count("ace-step-1.5: taking what has this name in the working directory") == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ACE-Step1.5", "ace-step-1.5"),
        ("acestep", "ace-step-1.5"),
        ("ear_vae_44k", "ear-vae-44k"),
        ("stable-audio-open", "stable-audio-open-1.0"),
        ("yue", "yue2"),
        ("something else", None),
    ],
)
def test_an_unknown_name_is_one_line_with_the_closest(here, given, meant):
    for call, what in ((earvae_jax.load, "checkpoint"), (sources.locate, "weights file")):
        with pytest.raises(UserError) as caught:
            call(given)
        asked = f": did you mean {meant}?" if meant else ";"
        assert str(caught.value) == (
            f"{given}: no such {what}, nor a known model{asked} earvae models lists them"
        )


@pytest.mark.parametrize("given", ["checkpoints/ear_vae_44k", "ear_vae_44k.pyt", "ace-step-1.5/", "./yue2"])
def test_paths_are_no_names(here, given):
    for call in (earvae_jax.load, sources.locate):
        with pytest.raises(UserError, match=r"no such (checkpoint|weights file)"):
            call(given)
