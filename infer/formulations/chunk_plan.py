"""How a level covers time in chunks: what each takes in, and where it stands in the buffers."""

import math
from typing import NamedTuple

from earvae_jax.infer.formulations import toom_cook
from earvae_jax.infer.formulations.toom_cook import PHASES
from earvae_jax.model.oobleck import DILATIONS, RESIDUAL_WIDTH


class Place(NamedTuple):
    """Where a signal stands in a buffer: behind `lead` zeros, in `size` steps."""

    lead: int
    size: int


class Plan(NamedTuple):
    """How a level covers its time, in steps of the rate that its residual units run at."""

    chunks: int
    length: int  # new steps of a chunk
    outputs: int  # quarter-rate steps that the units give for a chunk
    inputs: int  # and that they need for it
    margin: int  # steps that a chunk's input begins before its first new step

    @property
    def span(self) -> int:
        """Steps from the begin of the first chunk's input to the end of the last one's."""
        return (self.chunks - 1) * self.length + PHASES * self.inputs


class UpWindow(NamedTuple):
    """What a chunk of a decoder level takes from the level's input, in steps of it."""

    inputs: int
    skip: int  # of the up-sampled steps, those before the units' input
    place: Place


def shift_of(dilation: int) -> int:
    """Steps that the first output of a residual unit lies behind its first input."""
    return PHASES * toom_cook.lag(dilation) + dilation * (RESIDUAL_WIDTH - 1) // 2


def plan_chunks(length: int, stride: int, channels: int, chunk: int | None, *, edge: int) -> Plan:
    """Chunks of a level whose outputs are wanted `edge` steps beyond each end of a chunk."""
    # 4 MiB for an activation, but not so few steps that the margins weigh.
    chunk = chunk or max(4096, (1 << 20) // channels)
    count = -(-length // chunk)
    step = math.lcm(PHASES, stride)
    chunk = -(-length // (count * step)) * step
    outputs = -(-(chunk + 2 * edge) // PHASES)
    inputs = outputs
    for dilation in reversed(DILATIONS):
        inputs = toom_cook.inputs_for(inputs, dilation)
    return Plan(count, chunk, outputs, inputs, sum(map(shift_of, DILATIONS)) + edge)


def up_window(plan: Plan, stride: int) -> UpWindow:
    """What chunks take from the rate below, through a transposed convolution of width 2·stride."""
    # The inputs n − 1 and n give the s outputs from n·s − s/2 on.
    before = max(0, -(-(plan.margin - stride // 2) // stride))
    skip = before * stride + stride // 2 - plan.margin
    inputs = -(-(skip + PHASES * plan.inputs) // stride) + 1
    return UpWindow(inputs, skip, Place(before + 1, (plan.chunks - 1) * plan.length // stride + inputs))
