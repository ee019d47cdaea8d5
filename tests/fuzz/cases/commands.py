"""Command lines: a whole one of each command, with odd words, values, flags and files in it."""

import argparse
import functools
import importlib
import json
import os
import random
import shutil
from pathlib import Path

from earvae_jax import command

from . import odd
from .corpus import Seeds
from .domains import Case

_PLACES = (
    "in/tone.wav", "in/latents.npz", "in/model.safetensors", "in/folder", "in/weights.pyt", "in/train.json",
    "in/model.json", "in/pipe", "in/loop", "in/dangling", "in/unreadable.wav", "in/empty", "in/empty.wav",
    "in/zero",
    "in/full", "in/null", "in/random", "in/many", "in/absent", "in/tone.wav/x", "output", "output/x", ".",
    "in", "..",
    "/proc/nothing/x", "/proc/version", "", "in/" + "a" * 300, "in/" + "a/" * 2000, "in/mixed", "hf://a", "hf://a/b/c.pyt",
)  # fmt: skip
# No place outside of the case's folder: the outputs of these commands go where they say.
_TEXTS = [text for text in odd.TEXTS if "\0" not in text and text not in ("\ud800", "/", "../..", "..")]
_VALUES = (
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "auto",
    "off",
    "٣",
    "1_0",
    " 1 ",
    "0x10",
    "true",
)


def make(random: random.Random, seeds: Seeds) -> Case:
    """A folder `in` of whole and odd things, and a command line."""
    _furnish(seeds)
    words = list(random.choice(_lines()))
    flags = _flags(words[0])
    edits = []
    for _ in range(random.choice((1, 1, 2, 2, 3))):
        edit = random.choice(
            (_other_value, _other_value, _other_value, _add, _add, _add, _drop, _twice, _odd_word)
        )
        edits.append(edit.__name__.strip("_"))
        edit(random, words, flags)
    words = [word for word in words if word != "--help"]
    return Case(f"{' + '.join(edits)}: {json.dumps(words)[:1500]}", tuple(words), free=True)


def _lines() -> tuple[tuple[str, ...], ...]:
    model = ("--checkpoint", "in/model.safetensors")
    return (
        ("encode", "in/tone.wav", "--output-dir", "output", *model),
        ("encode", "in/folder", "--output-dir", "output", *model),
        ("decode", "in/latents.npz", "--output-dir", "output", *model),
        ("reconstruct", "in/tone.wav", "--output-dir", "output", *model),
        ("evaluate", "in/tone.wav", "in/tone.wav", "--output-dir", "output", "--report-files", "0"),
        ("evaluate", "in/folder", "in/folder", "--output-dir", "output", "--report-files", "0"),
        ("train", "--config", "in/train.json", "--workdir", "output/run", "--set", "steps=2"),
        ("train", "--config", "in/train.json", "--workdir", "output/run", "--init", "in/model.safetensors"),
        (
            "convert",
            "from-torch",
            "in/weights.pyt",
            "output/model",
            "--sample-rate",
            "8000",
            "--no-final-tanh",
        ),
        ("convert", "from-torch", "in/weights.pyt", "output/model", "--config", "in/model.json"),
        ("convert", "to-torch", "in/model.safetensors", "output/weights.pyt"),
        (
            "parity",
            "in/weights.pyt",
            "--no-final-tanh",
            "--audio",
            "in/short.wav",
            "--json",
            "output/parity.json",
        ),
        ("benchmark", "--config", "in/model.json", "--seconds", "0.1", "--json", "output/speed.json"),
        ("info", "in/model.safetensors"),
    )


def _furnish(seeds: Seeds) -> None:
    here = Path("in")
    for folder in ("folder/deep", "empty", "mixed"):
        (here / folder).mkdir(parents=True)
    weights, latents = seeds.folder / "weights" / "plain.pyt", seeds.folder / "latents" / "plain-float32.npz"
    for source, name in (
        (seeds.tone, "tone.wav"), (seeds.tone, "folder/a.wav"), (seeds.tone, "folder/deep/b.wav"),
        (weights, "weights.pyt"),
        (latents, "latents.npz"), (seeds.checkpoint, "model.safetensors"), (seeds.tone, "mixed/a.wav"),
        (seeds.tone, "unreadable.wav"),
        (seeds.folder / "configs" / "model-plain.json", "model.json"),
        (seeds.folder / "configs" / "train-plain.json", "train.json"),
    ):  # fmt: skip
        shutil.copyfile(source, here / name)
    short = bytearray(seeds.tone.read_bytes()[: 44 + 400])
    (here / "short.wav").write_bytes(short)
    (here / "empty.wav").touch()
    (here / "mixed" / "b.wav").write_bytes(b"RIFF")
    (here / "mixed" / "a.flac").write_bytes(b"fLaC")
    (here / "unreadable.wav").chmod(0)
    os.mkfifo(here / "pipe")
    for name, aim in (("loop", "loop"), ("dangling", "nowhere"), ("zero", "/dev/zero"), ("full",
        "/dev/full"), ("null", "/dev/null"), ("random", "/dev/urandom")):  # fmt: skip
        (here / name).symlink_to(aim)
    (here / "many").mkdir()
    (here / "many" / "itself").symlink_to("../many")


@functools.cache
def _flags(name: str) -> tuple[tuple[str, bool], ...]:
    """Every flag of a command, and whether a value follows it."""
    parser = argparse.ArgumentParser()
    importlib.import_module(command._SUBCOMMANDS[name][0]).add_arguments(parser)
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    actions = [action for each in parsers for action in each._actions]
    return tuple((flag, action.nargs != 0) for action in actions for flag in action.option_strings)


def _word(random: random.Random) -> str:
    return random.choice(random.choice((_PLACES, _PLACES, _VALUES, _TEXTS)))


def _other_value(random, words, flags):
    words[random.randrange(1, len(words)) if len(words) > 1 else 0] = _word(random)


def _add(random, words, flags):
    flag, takes = random.choice(flags)
    new = [flag, _word(random)] if takes else [flag]
    if takes and random.random() < 0.5:
        new = [f"{flag}={new[1]}"]
    place = random.choice((len(words), random.randrange(len(words) + 1)))
    words[place:place] = new


def _drop(random, words, flags):
    if len(words) > 1:
        del words[random.randrange(len(words))]


def _twice(random, words, flags):
    word = random.choice(words)
    words.insert(random.randrange(len(words) + 1), word)


def _odd_word(random, words, flags):
    words.insert(random.randrange(len(words) + 1), _word(random))
