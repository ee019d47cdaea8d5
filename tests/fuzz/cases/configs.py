"""Configs: of models and of training, as files, as `--set`, and the commands that take them."""

import functools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

from . import odd, odd_json
from .corpus import Seeds
from .domains import Case

_MODELS = ("plain", "transformer", "options", "ear_vae_44k", "demo_44k")
_RUNS = ("plain", "transformer", "plain", "transformer", "train_44k", "train_demo")


def make(random: random.Random, seeds: Seeds) -> Case:
    """One odd config below `in`."""
    Path("in").mkdir()
    return _model(random, seeds) if random.random() < 0.45 else _training(random, seeds)


def _model(random: random.Random, seeds: Seeds) -> Case:
    from earvae_jax.model.config import ModelConfig

    from ..accepted import use_model

    name = random.choice(_MODELS)
    path, made = _write(random, seeds.json(f"model-{name}.json"), _other_model)
    weights = str(seeds.folder / "weights" / f"{'plain' if name == 'plain' else 'transformer'}.pyt")
    how = random.choice(("call", "call", "call", "convert", "benchmark"))
    if how == "call":
        return Case(f"{name}: {made}", call=lambda: use_model(ModelConfig.from_json(path)), names=(path,))
    if how == "benchmark":
        words = ("benchmark", f"--config={path}", "--seconds", "0.1")
        return Case(f"benchmark {name}: {made}", words, names=(path,))
    words = ("convert", "from-torch", weights, "output/model", f"--config={path}", "--sample-rate", "8000")
    return Case(f"convert {name}: {made}", words, names=(path, weights))


def _training(random: random.Random, seeds: Seeds) -> Case:
    from earvae_jax.train.config import TrainConfig

    name = random.choice(_RUNS)
    values = seeds.json(f"train-{name}.json")
    for part in ("plain", "transformer"):
        Path(f"in/{part}.json").write_text(json.dumps(seeds.json(f"model-{part}.json")), encoding="utf-8")
    if random.random() < 0.2:
        values["model"] = random.choice(
            ("plain.json", "transformer.json", "absent.json", "../in/plain.json", ".")
        )
    overrides = [_override(random, values) for _ in range(random.choice((0, 0, 1, 2)))]
    if random.random() < 0.25 and overrides:
        path, made = "in/whole.json", "whole"
        Path(path).write_text(json.dumps(values), encoding="utf-8")
    else:
        path, made = _write(random, values, _other_run)
    made = f"{name}: {made} {overrides}"
    names = (path, "--set")
    how = random.choice(("read", "read", "read", "train", "train"))
    if how == "read":
        return Case(made, call=functools.partial(TrainConfig.from_json, path, overrides), names=names)
    flags = [odd.argument(f"--set={each}") for each in overrides]
    return Case(
        f"train {made}", ("train", f"--config={path}", "--workdir", "output/run", *flags), names=names
    )


def _override(random: random.Random, values: dict) -> str:
    """`key=value`: a key of the config or an odd one, a value in JSON or not."""
    key, place = [], values
    while isinstance(place, dict) and place and random.random() < 0.85:
        key.append(random.choice(sorted(place)))
        place = place[key[-1]]
    text = ".".join(key)
    if random.random() < 0.15:
        text = random.choice(
            (text + ".", "." + text, "", "..", text + ".x.y", text.upper(), random.choice(odd.TEXTS[:14]))
        )
    value = odd.value(random)
    if place is not None and random.random() < 0.3:
        value, _ = odd_json.edited(random, place)
    written = json.dumps(value) if random.random() < 0.8 else str(value)
    equals = "=" if random.random() < 0.97 else random.choice(("", "==", ":"))
    return f"{text}{equals}{written}"


def _write(random: random.Random, values: dict, other: Callable) -> tuple[str, str]:
    """Of three files one is another config that may well be right, one is both, one is odd."""
    how, data, parts = random.random(), b"", []
    if how < 0.66:
        parts.append(other(random, values))
        data = odd_json.written(values).encode()
    if how > 0.33:
        data, made = odd_json.text(random, values)
        parts.append(made)
    path = Path("in") / odd.name(random, ".json")
    path.write_bytes(data)
    return str(path), " + ".join(parts)


_SIZES = (1, 1, 2, 2, 3, 4, 5, 7, 8, 16, 32, 33, 64, 100, 1000, 10**5, 10**7, 10**9, 2**31, 2**40, 10**12)


def _other_model(random: random.Random, values: dict) -> str:
    """Sizes and options that agree with each other, however large."""
    halves = [values[half].get("config", values[half]) for half in ("encoder", "decoder")]
    made = []
    if random.random() < 0.5:
        levels = (
            random.choice((1, 2, 3, 8, 24, 60, 500, 20_000))
            if random.random() < 0.3
            else random.choice((1, 2, 3))
        )
        strides = [random.choice((2, 2, 2, 3, 4, *_SIZES[2:12])) if levels < 9 else 2 for _ in range(levels)]
        mults = [random.choice((1, 1, 2, 2, *_SIZES)) if random.random() < 0.3 else 1 for _ in range(levels)]
        for half in halves:
            half |= {"strides": strides, "c_mults": mults}
        values["downsampling_ratio"] = math.prod(strides)
        made.append(f"strides {str(strides)[:60]} c_mults {str(mults)[:60]}")
    if random.random() < 0.3:
        channels = random.choice(_SIZES)
        for half in halves:
            half["channels"] = channels
        made.append(f"channels {channels}")
    if random.random() < 0.3:
        values["latent_dim"] = dim = random.choice(_SIZES)
        halves[0]["latent_dim"], halves[1]["latent_dim"] = 2 * dim, dim
        made.append(f"latent_dim {dim}")
    if random.random() < 0.2:
        channels = random.choice(_SIZES)
        values["io_channels"] = halves[0]["in_channels"] = halves[1]["out_channels"] = channels
        made.append(f"io_channels {channels}")
    if isinstance(values.get("transformer"), dict):
        options = values["transformer"]["config"]
        for place, key in ((values["transformer"], "depth"), (options, "dim_heads"), (options,
        "abs_pos_emb_max_length"),
                           (options.get("ff_kwargs", {}), "mult"), (options.get("ff_kwargs", {}),
                               "conv_kernel_size")):  # fmt: skip
            if random.random() < 0.3:
                place[key] = random.choice(_SIZES)
                made.append(f"{key} {place[key]}")
        halves = [*halves, options, *(options[key] for key in ("ff_kwargs", "norm_kwargs") if key in options)]
    values["sample_rate"] = random.choice((8000, 44_100, *_SIZES)) if random.random() < 0.2 else 8000
    for place in halves:
        for key, value in place.items():
            if isinstance(value, bool) and random.random() < 0.2:
                place[key] = not value
                made.append(f"{key} {not value}")
    return ", ".join(made)


def _other_run(random: random.Random, values: dict) -> str:
    """Numbers of a run that may well be right."""
    if isinstance(values.get("model"), dict) and random.random() < 0.5:
        return _other_model(random, values["model"])
    made = []
    for place in [values, *(part for part in values.values() if isinstance(part, dict)),
        *filter(lambda part: isinstance(part, dict),
        (values.get("adversarial") or {}).values())]:  # fmt: skip
        for key, value in place.items():
            if isinstance(value, (int, float)) and random.random() < 0.15:
                place[key] = (
                    not value
                    if isinstance(value, bool)
                    else random.choice((*_SIZES, 0, 0.5, 1e-30, 1e30, 0.999999))
                )
            elif isinstance(value, list) and value and isinstance(value[0], int) and random.random() < 0.15:
                place[key] = random.sample(_SIZES[3:], random.choice((1, 2, 5)))
            else:
                continue
            made.append(f"{key} {place[key]}")
    return ", ".join(made)
