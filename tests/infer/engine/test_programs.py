"""The programs that an engine names are those that it runs."""

import collections

import jax
import numpy as np
import pytest
import small_models

from earvae_jax.infer.codec import Codec
from earvae_jax.infer.engine.batching import BatchSize
from earvae_jax.infer.engine.programs import plan
from earvae_jax.model.config import TransformerConfig
from earvae_jax.targets.devices import bytes_of_a_device
from earvae_jax.targets.reading import read

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATIO = 4
ON_ACCELERATOR = "as on an accelerator"
MODEL = small_models.config((2, 2), latent_dim=32, transformer=TransformerConfig(depth=2, dim_heads=32))


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 3, 4, ON_ACCELERATOR])
@pytest.mark.parametrize("latents", [(10,), (70, 300, 40), (129, 1, 128, 2500, 64, 64, 64)])
def test_what_is_named_is_what_runs(batch_size, latents, monkeypatch):
    on_accelerator = batch_size == ON_ACCELERATOR
    codec = Codec(small_models.model(MODEL), batch_size=1 if on_accelerator else batch_size)
    engine = codec.engine
    if on_accelerator:
        engine.batch_size = BatchSize(1, largest=256, few_programs=True)
    ran: collections.Counter = collections.Counter()

    def noted(name, run):
        def call(values, *extent):
            ran[
                f"{name} {len(values)} × {values.shape[1] // (RATIO if name == 'encode' else 1)} latents"
            ] += 1
            return run(values, *extent)

        return call

    def noted_layer(run):
        def call(weights, values, length):
            ran[f"transformer layer {values.shape[0] * values.shape[2]} latents"] += 1
            return run(weights, values, length)

        return call

    monkeypatch.setattr(engine.compiled, "encode", noted("encode", engine.compiled.encode))
    monkeypatch.setattr(engine.compiled, "decode", noted("decode", engine.compiled.decode))
    monkeypatch.setattr(engine.compiled, "_layers", [*map(noted_layer, engine.compiled._layers)])
    codec.reconstruct([np.zeros((count * RATIO, 2), np.float32) for count in latents])
    named = plan(engine, latents, ["encode", "decode"], subject="test").programs
    assert {program.name: program.runs for program in named} == ran


def test_named_programs_compile():
    codec = Codec(small_models.model(MODEL), batch_size=2)
    made = plan(codec.engine, [100], ["encode", "decode"], subject="test")
    assert [program.name.split()[0] for program in made.programs] == ["encode", "transformer", "decode"]
    for program in made.programs:
        reading = read(program.lower().compile())
        assert reading.memory.arguments >= program.held > 0
        assert reading.kernels > 0
    encode, layer, decode = (program.held for program in made.programs)
    assert made.resident == {"weights": encode + 2 * layer + decode}
    (growth,) = made.growths
    (encode, decode) = growth.programs(5)
    assert encode.name.startswith("encode 5 × ") and decode.name.startswith("decode 5 × ")
    assert encode.lower().in_avals[0][1].shape[0] == 5


def test_a_model_without_a_transformer():
    codec = Codec(small_models.model(small_models.KINDS["even strides"]))
    made = plan(codec.engine, [100], ["decode"], subject="test")
    assert [program.name.split()[0] for program in made.programs] == ["decode"]


def test_bytes_of_a_device_are_those_of_its_part():
    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("x",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    shape = jax.ShapeDtypeStruct((8 * len(devices), 3), np.float32, sharding=split)
    assert bytes_of_a_device([shape, jax.ShapeDtypeStruct((5,), np.int8)]) == 8 * 3 * 4 + 5
