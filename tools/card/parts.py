"""The parts in order of worth: how each is called, and how long it may take."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from tools.card.sizes import CONFIG, DIFFUSERS_CONFIG, RECIPE, model_config, recipe_overrides

DTYPES = ("bfloat16", "float32", "tf32")
# One window for all contenders, and a full one, what a long file is made of: nothing beyond its end counts.
BENCHMARK_SECONDS = 23.77
_LONG_SECONDS = 186.0  # eight such windows, nearly full, where computing overlaps all else


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a part runs, and what is known of the machine."""

    work: Path  # what the parts make and share
    small: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """One program."""

    name: str
    title: str
    words: Callable[[Place, Path], list[str]]  # its call, given where it is to write its JSON
    limit: float = 120.0  # seconds
    least: float = 20.0  # with less time left it is not begun
    needs: tuple[str, ...] = ()  # modules without which it cannot run


def _measured(name: str, title: str, limit: float, least: float) -> Part:
    def words(place: Place, output: Path) -> list[str]:
        module = ["-m", f"tools.card.measured.{name}", "--output", str(output), "--work", str(place.work)]
        return [sys.executable, *module, *(["--small"] if place.small else [])]

    return Part(name, title, words, limit, least)


def _benchmark(
    dtype: str, *, long: bool = False, compiled: bool = False, diffusers: bool = False, limit: float = 90.0
) -> Part:
    def words(place: Place, output: Path) -> list[str]:
        seconds = _LONG_SECONDS if long else BENCHMARK_SECONDS
        name = DIFFUSERS_CONFIG if diffusers else CONFIG
        made = [sys.executable, "-m", "earvae_jax", "benchmark", "--json", str(output), "--dtype", dtype]
        made += ["--config", model_config(name, place.work, small=place.small)]
        made += ["--seconds", str(1.5 if place.small else seconds)]
        made += ["--repeats", "1" if place.small else "3"]
        made += [] if compiled and not place.small else ["--skip-compile"]
        return made + (["--with-diffusers"] if diffusers else [])

    what = ("diffusers-" if diffusers else "benchmark-") + dtype
    name = what + ("-long" if long else "") + ("-compile" if compiled else "")
    title = f"codec against torch{' and diffusers' if diffusers else ''}, {dtype}"
    title += ", a long file" if long else ", one window"
    title += ", with torch.compile" if compiled else ""
    # Without torch the first benchmark of a format says it all.
    needs = ("torch", "diffusers") if diffusers else ("torch",) if name.endswith("-compile") else ()
    return Part(name, title, words, limit, needs=needs)


def _training(dtype: str, limit: float) -> Part:
    def words(place: Place, output: Path) -> list[str]:
        crop, crops = (4096, 2) if place.small else (65_536, 4)
        changes = recipe_overrides(place.work, small=place.small, crop=crop, crops=crops, dtype=dtype)
        made = [sys.executable, "-m", "earvae_jax.train.studies.step_benchmark", "--config", RECIPE]
        made += [word for change in changes for word in ("--set", change)]
        return [
            *made,
            "--step",
            "adversarial",
            "--repeats",
            "1" if place.small else "5",
            "--json",
            str(output),
        ]

    return Part(f"training-{dtype}", f"training step against torch, {dtype}", words, limit, least=60.0)


MACHINE = _measured("machine", "the machine", 60, 5)
PARTS = (
    _measured("parity", "the codec against float64", 120, 30),
    _measured("windows", "windows against the whole file", 90, 20),
    _measured("fused", "fused residual units against the modules", 120, 20),
    _measured("tails", "the tails of residual units, cut in each way", 90, 20),
    _benchmark("bfloat16"),
    _measured("calls", "a call of the codec, and what it is made of", 120, 20),
    _benchmark("float32"),
    _measured("roofline", "encoder and decoder on the card alone", 150, 40),
    _benchmark("bfloat16", compiled=True, limit=240),
    _benchmark("bfloat16", long=True),
    _training("bfloat16", 400),
    _measured("song", "a song from file to file", 240, 30),
    _measured("start", "the second start", 200, 30),
    _measured("step", "one training step against the CPU's", 180, 60),
    _benchmark("tf32"),
    _benchmark("float32", long=True),
    _benchmark("tf32", long=True),
    _benchmark("float32", compiled=True, limit=180),
    _benchmark("tf32", compiled=True, limit=180),
    _benchmark("bfloat16", diffusers=True, limit=120),
    _benchmark("float32", diffusers=True, limit=120),
    _benchmark("bfloat16", long=True, diffusers=True, limit=120),
    _training("float32", 400),
)
