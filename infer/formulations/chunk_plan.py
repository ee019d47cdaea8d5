"""How a level covers time in chunks: what each chunk reads, and its place in the buffers."""

import math
from typing import NamedTuple

from earvae_jax.infer.formulations import toom_cook
from earvae_jax.infer.formulations.toom_cook import PHASES
from earvae_jax.model.oobleck import DILATIONS, RESIDUAL_WIDTH


class Place(NamedTuple):
    """Where a signal lies in a buffer of `size` steps: after `lead` zeros."""

    lead: int
    size: int


class Plan(NamedTuple):
    """How a level covers its time, in steps of the rate that its residual units run at."""

    chunks: int
    length: int  # new steps of a chunk
    outputs: int  # quarter-rate steps that the units output for a chunk
    inputs: int  # quarter-rate steps of input that they need for them
    margin: int  # steps by which a chunk's input begins before its first new step

    @property
    def span(self) -> int:
        """Steps from the start of the first chunk's input to the end of the last one's."""
        return (self.chunks - 1) * self.length + PHASES * self.inputs


class UpWindow(NamedTuple):
    """What a chunk of a decoder level reads from the level's input."""

    inputs: int  # steps of that input
    skip: int  # up-sampled steps before the units' input
    place: Place


def shift_of(dilation: int) -> int:
    """Steps from the first input of a residual unit to its first output."""
    return PHASES * toom_cook.lag(dilation) + dilation * (RESIDUAL_WIDTH - 1) // 2


def plan_chunks(length: int, stride: int, channels: int, chunk: int | None, *, edge: int) -> Plan:
    """Plans the chunks of a level; each also outputs `edge` steps beyond both of its ends."""
    # 4 MiB for an activation, but enough steps to make the margins negligible.
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
    """What chunks read at the lower rate, before a transposed convolution of width 2·stride."""
    # The inputs n − 1 and n give the s outputs from n·s − s/2 on.
    before = max(0, -(-(plan.margin - stride // 2) // stride))
    skip = before * stride + stride // 2 - plan.margin
    inputs = -(-(skip + PHASES * plan.inputs) // stride) + 1
    return UpWindow(inputs, skip, Place(before + 1, (plan.chunks - 1) * plan.length // stride + inputs))
