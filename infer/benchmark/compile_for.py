"""What `earvae benchmark` would run on an accelerator, for `--compile-for`."""

import argparse
from collections.abc import Sequence

import jax

from earvae_jax.infer.benchmark.measure import FALLBACK_RATE, latents_of
from earvae_jax.infer.benchmark.models import shapes_alone
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.programs import plan
from earvae_jax.targets.plan import Plan


def benchmark(arguments: argparse.Namespace, devices: Sequence[jax.Device]) -> Plan:
    """Encoding and decoding of so many seconds. A program does not depend on weights: they are zeros."""
    name, model = shapes_alone(arguments.checkpoint, arguments.config)
    rate = model.config.sample_rate or FALLBACK_RATE
    codec = Codec(
        model,
        dtype=arguments.dtype,
        sample_rate=rate,
        devices=devices,
        model_fingerprint=name,
        formulation=arguments.formulation,
    )
    latents = latents_of(model.config, arguments.seconds)
    seconds = latents * model.config.downsampling_ratio / rate
    return plan(
        codec.engine, [latents], ["encode", "decode"], subject=f"{name}, {arguments.dtype}, {seconds:.1f} s"
    )
