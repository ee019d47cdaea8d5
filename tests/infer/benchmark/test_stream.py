"""The measurement of streams: a row for each case, and a difference where there is one."""

import numpy as np
import pytest
from whole_file import codec_of

from earvae_jax.infer.benchmark.stream import rows

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(("kind", "cases"), [("even strides", 1), ("transformer", 4)])
def test_a_row_for_each_case(kind, cases):
    audio = np.random.default_rng(0).standard_normal((3000, 2), np.float32)
    found = list(rows(codec_of(kind), audio, [16]))
    assert len(found) == cases
    distances = [float(row[-1]) for row in found]
    assert distances[-1] < 1e-5 if kind == "even strides" else distances[0] > distances[-1]
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in found)
