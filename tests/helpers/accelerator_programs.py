"""The programs of the published models that are compiled for accelerators in tests, in fixed shapes."""

import argparse
import dataclasses

from earvae_jax.infer.benchmark.models import shapes_alone
from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.programs import layer_programs, window_program
from earvae_jax.targets.plan import Plan
from earvae_jax.train import compile_for

SEQUENCE = 8000  # latents of a file of three minutes


def inference(arguments, devices) -> Plan:
    """Encoder and decoder of one window, and a layer of the transformer over a whole file."""
    name, model = shapes_alone(None, arguments.config)
    engine = Codec(model, dtype=arguments.dtype, devices=devices, model_fingerprint=name).engine
    programs = [
        window_program(engine, "encode", 1, arguments.window),
        *layer_programs(engine, [SEQUENCE]),
        window_program(engine, "decode", 1, arguments.window),
    ]
    return Plan(name, programs, {})


def training(arguments, devices) -> Plan:
    """The step with the discriminator."""
    overrides = [f"data.batch_size={arguments.batch}", f"data.crop_samples={arguments.crop}"]
    plan = compile_for.train(argparse.Namespace(config=arguments.config, overrides=overrides), devices)
    return dataclasses.replace(plan, programs=plan.programs[-1:])
