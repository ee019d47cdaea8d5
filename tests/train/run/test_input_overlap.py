"""The next batch is loaded while a step runs, so that no device waits for a disk."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import light_training
import numpy as np
import pytest
import small_training

pytest.importorskip("grain", reason="training needs the extra `train`")

from earvae_jax.train.data.batches import TrainingExamples
from earvae_jax.train.run import loop
from earvae_jax.train.step.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")
STEPS = 4
BATCH = 2
PATIENCE = 20  # seconds: one that waits for the other in vain is a failure


def test_a_batch_is_loaded_during_the_step_before_it(tmp_path, monkeypatch):
    """Each waits for the other: step n ends when batch n + 1 is there, which is loaded once step n runs."""
    running = [threading.Event() for _ in range(STEPS + 2)]
    loaded = [threading.Event() for _ in range(STEPS + 2)]
    in_vain = []

    def meet(event, other, what):
        event.set()
        if not other.wait(PATIENCE):
            in_vain.append(what)

    def during(number, loss):
        meet(running[int(number)], loaded[int(number) + 1], f"step {int(number)} for the next batch")
        return np.asarray(loss)

    light_training.lighten(monkeypatch)

    def step(self, state, audio, *, adversarial):
        loss = jnp.mean(audio**2)
        loss = jax.pure_callback(during, jax.ShapeDtypeStruct((), jnp.float32), state.step, loss)
        terms = {"loss": loss, "skipped_in_a_row": jnp.zeros((), jnp.int32)}
        return dataclasses.replace(state, step=state.step + 1), terms

    monkeypatch.setattr(Trainer, "step", step)

    def load(self, number):
        batch, row = divmod(number, BATCH)
        if 0 < batch <= STEPS and row == BATCH - 1:
            meet(loaded[batch], running[batch - 1], f"batch {batch} for the step before it")
        return small_training.music(1)[0]

    monkeypatch.setattr(TrainingExamples, "__call__", load)
    data = {"crop_samples": small_training.CROP, "batch_size": BATCH, "validation_items": 2}
    data |= {"threads": 1, "buffered_batches": 1}
    config = light_training.config(steps=STEPS, data=data, checkpoint_every=100)
    assert loop.train(config, tmp_path) == STEPS
    assert not in_vain
