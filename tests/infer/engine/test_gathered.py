"""Rows gathered in any order come out in theirs."""

import numpy as np
import pytest

from earvae_jax.infer.engine import gathered


@pytest.mark.parametrize("room", [1, 40, 10_000])
def test_rows_come_out_in_order(room, monkeypatch):
    monkeypatch.setattr(gathered, "_ROOM", room)
    rows = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    rest = gathered.Gathered()
    for start in np.random.default_rng(1).permutation(np.arange(0, 50, 7)):
        rest.put(int(start), rows[start : start + 7])
    taken = rest.take()
    np.testing.assert_array_equal(taken, rows)
    assert taken.base is None or len(taken.base) <= 2 * len(taken)
