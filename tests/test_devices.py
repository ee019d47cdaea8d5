"""Eight simulated devices give the answer of one, and so does every window batch on them."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import jax, numpy as np, small_models
from test_tiling import sizes_for
from tolerances import TILED
from earvae_jax.infer import Codec

assert jax.local_device_count() == 8
config = small_models.KINDS["transformer"]
model, sizes = small_models.model(config), sizes_for(config)
for samples in (5, 3 * sizes[1] * config.downsampling_ratio + 7):
    audio = np.random.default_rng(0).standard_normal((samples, 2), np.float32)
    one = Codec(model, window_sizes=sizes, devices=jax.local_devices()[:1])
    for batch_size in ("auto", 3):
        eight = Codec(model, window_sizes=sizes, batch_size=batch_size)
        assert len(eight.compiled.devices) == 8
        latents, expected = eight.encode(audio), one.encode(audio)
        for ours, single in ((latents.mean, expected.mean), (latents.std, expected.std)):
            np.testing.assert_allclose(ours, single, rtol=0, atol=TILED * np.abs(single).max())
        for options in ({}, {"latent": "sample", "seed": 1, "name": "a"}):
            single = one.reconstruct(audio, **options)
            ours = eight.reconstruct(audio, **options)
            np.testing.assert_allclose(ours, single, rtol=0, atol=TILED * np.abs(single).max())
        shards = eight.compiled.encode(*(np.zeros(s, t) for s, t in (
            ((8, sizes[0] * config.downsampling_ratio, 2), np.float32), ((8,), np.int32), ((8,), np.int32))))
        assert len({shard.device for shard in shards[0].addressable_shards}) == 8
print("same")
"""


def test_eight_devices_give_the_answer_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "NPROC": "16",  # or the simulated devices wait for each other on a small machine
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr
