"""Eight simulated devices give the whole-file answer, in every window batch, and sample as one does."""

import os
import subprocess
import sys

import pytest
from places import HELPERS

SCRIPT = """
import random
import jax, numpy as np, small_models
from whole_file import compare, sizes_for, whole_file
from tolerances import TILED
from earvae_jax.infer import Codec

assert jax.local_device_count() == 8
lengths = random.Random(0)
for kind, batch_size in (("transformer", "auto"), ("antialiased nearest, odd, without bias", 11)):
    config = small_models.KINDS[kind]
    model, sizes, ratio = small_models.model(config), sizes_for(config), config.downsampling_ratio
    eight = Codec(model, window_sizes=sizes, batch_size=batch_size)
    assert len(eight.engine.compiled.devices) == 8
    drawn = [lengths.randint(2, 20 * sizes[1] * ratio) for _ in range(4)]
    for samples in (1, sizes[0] * ratio, sizes[1] * ratio + 1, *drawn):
        compare(eight, whole_file(kind), samples)
    shards = eight.engine.compiled.encode(*(np.zeros(s, t) for s, t in (
        ((8, sizes[0] * ratio, 2), np.float32), ((8,), np.int32), ((8,), np.int32))))
    assert len({shard.device for shard in shards[0].addressable_shards}) == 8
    one = Codec(model, window_sizes=sizes, devices=jax.local_devices()[:1])
    audio = np.random.default_rng(0).standard_normal((drawn[0], 2), np.float32)
    single, ours = (codec.reconstruct(audio, latent="sample", seed=1, name="a") for codec in (one, eight))
    np.testing.assert_allclose(ours, single, rtol=0, atol=TILED * np.abs(single).max())
print("same")
"""


@pytest.mark.slow
def test_eight_devices_give_the_whole_file_answer():
    pytest.importorskip("torch")  # computes it
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "NPROC": "16",  # or the simulated devices wait for each other on a small machine
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(HELPERS),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr
