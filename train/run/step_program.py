"""The training step as a program over devices: where its arrays lie, and the compiled function."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from earvae_jax.errors import UserError
from earvae_jax.model.vae import EarVAE
from earvae_jax.system.between_processes import replicate
from earvae_jax.train.config import TrainConfig
from earvae_jax.train.step.state import TrainState
from earvae_jax.train.step.step import Trainer

_DATA = "data"  # the mesh axis over which batches are split


class StepProgram:
    """One step of a run on some devices, which may be only described.

    Attributes:
      trainer: the pure functions of the run.
      split: how a batch lies on the devices.
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
        self._replicated = NamedSharding(mesh, PartitionSpec())
        shapes = self.trainer.state_shapes()
        self._state = self._placed(shapes)
        self._saved = self._placed(jax.eval_shape(self.trainer.unstacked, shapes))
        where = functools.partial(jax.tree.map, lambda leaf: leaf.sharding)
        self.run: Any = jax.jit(
            self.trainer.step,
            static_argnames="adversarial",
            donate_argnums=0,
            out_shardings=(where(self._state), self._replicated),
        )
        self._stack = jax.jit(self.trainer.stacked, out_shardings=where(self._state))
        self._unstack = jax.jit(self.trainer.unstacked, out_shardings=where(self._saved))

    def _placed(self, state: TrainState) -> TrainState:
        """The shapes of a state, and where its arrays lie."""

        def of(leaf, spec):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.split.mesh, spec))

        return jax.tree.map(of, state, self.trainer.split.spec(state))

    def initial_state(self, model: EarVAE | None) -> TrainState:
        """The state before the first step, where steps take it; see `Trainer.initial_state`."""
        state = self.trainer.initial_state(model)
        return jax.tree.map(lambda leaf, shape: replicate(leaf, shape.sharding), state, self._state)

    def state_shapes(self) -> TrainState:
        """The shapes and types of the state, and where it lies."""
        return self._state

    def saved_shapes(self) -> TrainState:
        """The same of the state as it is saved, by the names of the modules."""
        return self._saved

    def to_save(self, state: TrainState) -> TrainState:
        """A state as it is saved."""
        return self._unstack(state)

    def from_saved(self, saved: TrainState) -> TrainState:
        """The state that was saved so."""
        return self._stack(saved)

    def lowered(self, *, adversarial: bool) -> jax.stages.Lowered:
        """What `run` runs, before it is compiled."""
        data = self.config.data
        shape = (data.batch_size, data.crop_samples, self.trainer.model_config.io_channels)
        audio = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=self.split)
        return self.run.lower(self._state, audio, adversarial=adversarial)
