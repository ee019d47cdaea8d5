"""What the pages say can be done: their commands and Python blocks run, their links and names lead somewhere.

Each page runs from top to bottom in a folder of its own that holds the stand-ins below. A command that cannot
run in a test stands in `NOT_RUN` with the reason; its words are checked all the same.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import re
import sys
import tomllib
from pathlib import Path

import light_training
import numpy as np
import pages
import pytest
import small_models
from places import ROOT

from earvae_jax import checkpoints, command, demo
from earvae_jax.audio.writer import write
from earvae_jax.convert import to_torch
from earvae_jax.model.config import TransformerConfig

sys.path.append(str(ROOT))  # `tools` is no part of the package

from tools.card import __main__ as card

pytestmark = pytest.mark.usefixtures("quick_compilation")

PAGES = {page.name: page for page in pages.pages()}
RATE = 44_100
# Of the published model's rate, ratio and latents, and quick to compile.
MODEL = small_models.config((1024,), latent_dim=64, transformer=TransformerConfig(depth=1, dim_heads=32))
PUBLISHED = ("weights.pyt", "--sample-rate", str(RATE), "--dim-heads", "32", "--no-final-tanh")
BRIEF = [f"--set={change}" for change in ("model=tiny.json", "steps=2", "data.validation_items=1")]
BRIEF += [f"--set={change}" for change in ("adversarial=null", "data.crop_samples=16384", "data.threads=1")]

# Words of commands, and what the test gives in their place.
STAND_INS = {
    "hf://earlab/EAR_VAE/pretrained_weight/ear_vae_44k.pyt": PUBLISHED,
    "ear_vae_44k.pyt": PUBLISHED,
    "train_demo.json": ("train_demo.json", *BRIEF),
    "train_44k.json": ("train_44k.json", *BRIEF),
    "train_ace_step.json": ("train_ace_step.json", *BRIEF),
}
# Text of Python blocks, the same.
SHORTER = {"range(60)": "range(2)"}
# Commands that do not run here: a pattern, and why.
NOT_RUN = {
    r"hf://ACE-Step/": "it fetches another project's weights",
    r" (ace-step-1\.5|ear-vae-44k)( |$)": "it fetches published weights",
    r"^earvae convert to-torch .*--layout diffusers": "the stand-in has a transformer, their class has none",
    r"^earvae demo": "it serves until it is stopped; tests/infer/web_app visits it",
    r"^earvae benchmark": "it measures the full-size model for minutes",
    r"^python -m earvae_jax\.infer\.benchmark\.": "it measures the full-size model for an hour",
    r"^earvae .*--coordinator": "it waits for the other process",
    r"^earvae push": "it uploads to somebody's repository",
    r"--compile-for": "it needs a compiler for GPUs or TPUs; tests/targets compiles",
    r"^python -m earvae_jax\.train\.studies\.": "it trains or measures for many minutes",
    r"^python -m http\.server": "it serves until it is stopped",
    r"^python -m tests\.fuzz": "thousands of cases; test_fuzz.py runs some",
    r"^python -m tools\.card": "it measures for ten minutes; test_card.py runs small parts of it",
}
# Programs of others and of the repository that set up or test it: how their words are checked.
OTHER_PROGRAMS = {
    "pip": lambda words: check_extras(words),
    "pytest": lambda words: check_pytest(words),
    ".ci/run": lambda words: check_file(words[0]),
    "python3": lambda words: words[1:3] == ["-m", "venv"],
    ".": lambda words: words[1] == ".venv/bin/activate",
    "cp": lambda words: check_file(words[1]),
    "ruff": lambda words: words[1] in ("check", "format"),
    "tensorboard": lambda words: words[1] == "--logdir",
}
NEED_TORCH = ("convert", "parity")  # elsewhere their words are checked
ONNX = ("onnx", "onnxruntime", "onnxscript", "torch")  # where one is missing, ONNX is neither written nor run
FLAGS_OF_OTHERS = {"--again"}  # of tests.fuzz


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def check_extras(words: list[str]) -> bool:
    """Every extra in brackets is one of the project's."""
    extras = re.findall(r"[\w-]+", "".join(re.findall(r"\[(.+?)\]", " ".join(words))))
    return set(extras) <= project()["project"]["optional-dependencies"].keys()


def check_pytest(words: list[str]) -> bool:
    """Markers are declared, and paths exist."""
    markers = {line.partition(":")[0] for line in project()["tool"]["pytest"]["ini_options"]["markers"]}
    named = [words[place + 1] for place, word in enumerate(words) if word == "-m"]
    return set(named) <= markers and all((ROOT / word).exists() for word in words if word.startswith("tests"))


def check_file(name: str) -> bool:
    return (ROOT / name).is_file()


def why_not_run(words: list[str]) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, " ".join(words))), None)


def music(seconds: float, seed: int) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal((len(time), 2))
    tone = np.sin(2 * np.pi * (220 + 110 * seed) * time)[:, None]
    return (0.2 * tone + 0.02 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return small_models.model(dataclasses.replace(MODEL, sample_rate=RATE))


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """Where the commands of a page find songs, pairs and a small model under the names that pages use."""
    songs = (
        "song.mp3",
        "my_music/one.wav",
        "my_music/album/two.flac",
        "my_songs/three.wav",
        "pairs/NAME.wav",
        "pairs/NAME_vae_rec.wav",
    )
    for seed, name in enumerate(songs):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The content decides, not the name.
        write(path, music(1.0, seed), RATE, format="flac" if path.suffix == ".flac" else "wav")
    (tmp_path / "tiny.json").write_text(json.dumps(model.config.to_dict()))
    checkpoints.save(tmp_path / "demo.safetensors", model)
    if importlib.util.find_spec("torch"):
        to_torch.export(tmp_path / "demo.safetensors", tmp_path / "weights.pyt")
    monkeypatch.setattr(demo, "MODEL", tmp_path / "demo.safetensors")
    monkeypatch.setattr(demo, "CLIP", tmp_path / "my_music" / "one.wav")
    light_training.lighten(monkeypatch)  # steps are counted, not computed
    monkeypatch.chdir(tmp_path)
    return tmp_path


def has_onnx() -> bool:
    return all(map(importlib.util.find_spec, ONNX))


def lay_checkpoint(folder: Path, text: str) -> None:
    """Where a page, or a machine without torch, does not convert the published weights itself."""
    for name in ("checkpoints/ear_vae_44k", "checkpoints/ace-step"):
        if name in text and not (folder / name).exists():
            checkpoints.save(folder / name, checkpoints.load(demo.MODEL))


def run_command(words: list[str], earvae, folder: Path) -> None:
    """Runs one command of a page, or checks its words where it does not run."""
    program, *rest = words
    if program in OTHER_PROGRAMS:
        assert OTHER_PROGRAMS[program](words), words
    elif program == "python" and rest[0].endswith(".py"):
        assert check_file(rest[0]), words
    elif program == "python":
        assert rest[0] == "-m" and why_not_run(words), f"{words}: say in NOT_RUN why this does not run"
        if rest[1] == "tests.fuzz":
            check_fuzz(rest[2:])
        elif rest[1] == "tools.card":
            card.arguments(rest[2:])  # ends the process at a wrong flag
        else:
            assert importlib.util.find_spec(rest[1]), words
    else:
        assert program == "earvae", f"{words}: an unknown program"
        without_onnx = "onnx" in rest and not has_onnx()
        without_torch = rest[0] in NEED_TORCH and importlib.util.find_spec("torch") is None
        if without_torch or without_onnx or why_not_run(words):
            command._parse(words)  # ends the process at a wrong flag
            return
        if rest[:2] != ["convert", "from-torch"]:
            lay_checkpoint(folder, " ".join(rest))
        given = [given for word in rest for given in STAND_INS.get(word, (word,))]
        status, lines = earvae(*given)
        assert status == 0, "\n".join(lines)


def check_fuzz(words: list[str]) -> None:
    from fuzz.__main__ import _arguments

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["fuzz", *words])
        _arguments()


def run_python(block: pages.Block, page: pages.Page, namespace: dict, folder: Path) -> None:
    if "import torch\n" in block.text and importlib.util.find_spec("torch") is None:
        return
    lay_checkpoint(folder, block.text)
    text = block.text
    if "exported_onnx" in page.text and ("onnxruntime" in text or "sessions" in namespace) and not has_onnx():
        return
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    exec(compile("\n" * (block.line - 1) + text, page.path, "exec"), namespace)


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_says_can_be_done(name, folder, earvae):
    page, namespace = PAGES[name], {"__name__": "__main__"}
    for block in page.blocks:
        if block.language == "sh":
            for words in block.commands:
                try:
                    run_command(words, earvae, folder)
                except SystemExit as ended:
                    pytest.fail(f"{name}:{block.line}: {' '.join(words)}: ends with {ended.code}")
                except AssertionError as error:
                    pytest.fail(f"{name}:{block.line}: {' '.join(words)}: {error}")
        elif block.language == "python":
            run_python(block, page, namespace, folder)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language in ("", "text"), (
                f"{name}:{block.line}: blocks of {block.language} are not checked"
            )


def test_no_reason_is_left_over():
    words = [
        " ".join(words)
        for page in PAGES.values()
        for b in page.blocks
        if b.language == "sh"
        for words in b.commands
    ]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for line in words), f"{pattern} excuses no command"
    for stand_in in STAND_INS:
        assert any(stand_in in line.split() for line in words), f"{stand_in} stands in no command"


@pytest.mark.parametrize("name", PAGES)
def test_links(name):
    page = PAGES[name]
    assert not page.undefined_references
    for link in page.links:
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            assert re.fullmatch(r"https?://[\w.-]+\.\w+(/[\w./@%~+-]*)?(#[\w-]+)?", link), link
            continue
        path = page.path if not target else (page.path.parent / target).resolve()
        assert path.exists(), f"{name}: {link}: no such file"
        if anchor:
            assert anchor in pages.Page(path).anchors, f"{name}: {link}: no such heading"


@pytest.mark.parametrize("name", PAGES)
def test_names_in_the_text(name):
    """Files of the repository exist, and flags are some command's."""
    prose = PAGES[name].prose
    for path in re.findall(r"`([\w.-]+/[\w./-]*)`", prose):
        rooms = path.partition("/")[0] in (
            "earvae_jax",
            "convert",
            "infer",
            "train",
            "tests",
            "configs",
            "docs",
            "tools",
            ".ci",
        )
        assert not rooms or (ROOT / path).exists(), f"{name}: {path} does not exist"
    for module in re.findall(r"python -m (earvae_jax[\w.]+)", prose):
        assert importlib.util.find_spec(module), f"{name}: {module}"
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"XLA_FLAGS=\S+", "", prose)))
    assert flags <= known_flags() | FLAGS_OF_OTHERS, f"{name}: {flags - known_flags()}"


@functools.cache
def known_flags() -> set[str]:
    """Those of the commands, and of the programs that are run by `python -m`."""
    flags = set()
    for path in [*(ROOT / "train" / "studies").glob("*.py"), ROOT / "train" / "free_music" / "__main__.py"]:
        if "run_program(main)" in path.read_text():
            words = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            told = io.StringIO()
            with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
                importlib.import_module(f"earvae_jax.{words}").main(["--help"])
            flags |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", told.getvalue()))
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        card.arguments(["--help"])
    flags |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", told.getvalue()))
    for module, _ in command._SUBCOMMANDS.values():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        flags |= flags_of(parser)
    return flags


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    flags = set()
    for action in parser._actions:
        flags |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                flags |= flags_of(each)
    return flags


def test_the_readme_is_short_and_leads_everywhere():
    readme = PAGES["README.md"]
    assert len(readme.text.splitlines()) <= 130
    targets = {link.partition("#")[0] for link in readme.links}
    assert set(PAGES) - {"README.md"} <= targets
    for picture in (ROOT / "docs").glob("*.webp"):
        assert picture.stat().st_size <= 200_000


def test_ci_finds_the_test_command():
    marked = re.search(r"<!-- test command -->\n(.*?)<!-- end -->", PAGES["README.md"].text, re.DOTALL)
    assert marked and "pytest" in marked[1]
