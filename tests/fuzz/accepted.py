"""What is put in the project's place in a worker: work that is long or has no end, and nothing that reads."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp

from earvae_jax import parameters
from earvae_jax.model.config import ModelConfig
from earvae_jax.system import machine

from .cases.corpus import Seeds

_TRACED = 300_000  # parameters of a model that is small enough to be traced in every case


def install(seeds: Seeds) -> None:
    """Whole models are loaded once, training ends before its first step, benchmarks measure nothing."""
    from earvae_jax.infer.benchmark import measure as benchmark
    from earvae_jax.infer.codec import Codec
    from earvae_jax.train.run import loop

    load, kept = Codec.load.__func__, {}

    def load_once(cls, path=None, **options):
        if path is not None and not Path(path).is_relative_to(seeds.folder):
            return load(cls, path, **options)
        key = str(path), repr(sorted(options.items(), key=str))
        if key not in kept:
            kept[key] = load(cls, path, **options)
        return kept[key]

    Codec.load = classmethod(load_once)
    loop.train = train
    benchmark.measure = _measure

    machine.physical_memory = lambda: 1 << 30  # so that no case's own limit is reached before

    def unreachable(*_, **__):
        raise RuntimeError("nobody is there")

    jax.distributed.initialize = unreachable  # the wait for others is what the user asks for


def train(config, workdir, **_) -> int:
    """In place of a run: everything that its first step needs, as shapes."""
    from earvae_jax.train.run.workdir import claim
    from earvae_jax.train.step.step import Trainer

    parameters.check_fits_in_memory(config.model_config)
    with claim(workdir):
        use_model(config.model_config)
        trainer = Trainer(config)
        if parameter_count(config.model_config) <= _TRACED and _small(config):
            state = trainer.state_shapes()
            audio = jax.ShapeDtypeStruct((config.data.batch_size, config.data.crop_samples, 2), jnp.float32)
            jax.eval_shape(functools.partial(trainer.step, adversarial=False), state, audio)
    return config.steps


def _small(config) -> bool:
    sizes = (*config.objective.n_ffts, *config.objective.phase_n_ffts)
    return (
        config.data.crop_samples <= 8192
        and config.data.batch_size <= 16
        and len(sizes) < 8
        and config.accumulate < 5
    )


def use_model(config: ModelConfig) -> None:
    """What is done with a config that was accepted: its arrays, and of a small one a trace of both ways."""
    from earvae_jax.model.vae import EarVAE
    from earvae_jax.receptive_field import decoder_context, encoder_context

    encoder_context(config), decoder_context(config)
    if parameter_count(config) > _TRACED or config.downsampling_ratio > 4096:
        return
    model = EarVAE(config, rngs=None)
    audio = jax.ShapeDtypeStruct(
        (1, _latents(config) * config.downsampling_ratio, config.io_channels), jnp.float32
    )

    def there_and_back(model, audio):
        return model.decode(model.encode(audio).mean)

    from flax import nnx

    nnx.eval_shape(there_and_back, model, audio)


def _latents(config: ModelConfig) -> int:
    bounded = config.transformer is not None and config.transformer.use_abs_pos_emb
    return min(4, config.transformer.abs_pos_emb_max_length) if bounded else 4


def parameter_count(config: ModelConfig) -> int:
    """Of all arrays."""
    return sum(math.prod(array.shape) for array in parameters.expected_arrays(config).values())


def _measure(model, *, name: str, seconds: float, repeats: int, dtype: str, **_):
    from earvae_jax.infer.benchmark.measure import Result, Row

    row = Row("nothing", "encode", 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, None)
    return Result({"machine": "none"}, name, dtype, seconds, repeats, {"none": 1.0}, {}, (row,))
