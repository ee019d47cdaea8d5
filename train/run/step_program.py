"""The training step as a program over devices: where its arrays lie, and the compiled function."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from earvae_jax.errors import UserError
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.step.step import Trainer, TrainState

_DATA = "data"  # the mesh axis over which batches are split


class StepProgram:
    """One step of a run on some devices, which may be only described.

    Attributes:
      trainer: the pure functions of the run.
      split: how a batch lies on the devices.
      replicated: how the state does.
      run: (state, audio, adversarial=) -> (state, terms); it gives away the state's buffers.

    Raises:
      UserError: the batch cannot be split over so many devices.
    """

    def __init__(self, config: TrainConfig, devices: Sequence[jax.Device]):
        mesh = Mesh(np.array(devices), (_DATA,))
        self.config = config
        self.trainer = Trainer(config, mesh)
        part = config.data.batch_size // config.accumulate
        if part % mesh.size:
            raise UserError(
                f"data.batch_size {config.data.batch_size} in {config.accumulate} parts cannot be split over "
                f"{mesh.size} devices"
            )
        self.split = NamedSharding(mesh, PartitionSpec(_DATA))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.run: Any = jax.jit(
            self.trainer.step,
            static_argnames="adversarial",
            donate_argnums=0,
            out_shardings=(self.replicated, self.replicated),
        )

    def state_shapes(self) -> TrainState:
        """The shapes and types of the state, and where it lies: into these a checkpoint is read."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            self.trainer.state_shapes(),
        )

    def lowered(self, *, adversarial: bool) -> jax.stages.Lowered:
        """What `run` runs, before it is compiled."""
        data = self.config.data
        shape = (data.batch_size, data.crop_samples, self.trainer.model_config.io_channels)
        audio = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=self.split)
        return self.run.lower(self.state_shapes(), audio, adversarial=adversarial)
