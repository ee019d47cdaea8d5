"""Sums that grow and merge give what numpy gives over everything at once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import STATISTICS

from earvae_jax.infer.latent_sets import statistics
from earvae_jax.infer.latent_sets.statistics import Statistics


def drawn(counts, seed, offset=0.0):
    random = np.random.default_rng(seed)
    return [
        (
            (offset + random.standard_normal((n, 3)) * (0.01, 1, 30)).astype(np.float32),
            random.uniform(0, 2, (n, 3)),
        )
        for n in counts
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 99), st.sampled_from([0.0, 1e4]))
def test_merged_in_any_way_they_are_those_of_all(counts, seed, offset):
    parts = drawn(counts, seed, offset)
    mean, std = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True))
    each = [Statistics.of(*part) for part in parts]
    half = len(each) // 2
    while len(each) > 1:
        second = each.pop(half % len(each))
        each[0] = each[0].merged(second)
    found = each[0]
    assert found.count == len(mean)
    close = {"rtol": STATISTICS, "atol": STATISTICS * (1 + offset)}
    np.testing.assert_allclose(found.mean, mean.mean(0), **close)
    np.testing.assert_allclose(found.covariance, np.cov(mean.T, bias=True), **close)
    np.testing.assert_allclose(found.deviation, mean.std(0), **close)
    np.testing.assert_allclose(found.sampled_deviation, np.sqrt(mean.var(0) + (std**2).mean(0)), **close)
    assert found.dead == np.flatnonzero(mean.std(0) < np.sqrt((std**2).mean(0))).tolist()


def test_long_pieces_are_taken_in_parts(monkeypatch):
    ((mean, std),) = drawn([100], 0, 50.0)
    whole = Statistics.of(mean, std)
    monkeypatch.setattr(statistics, "_ROWS", 7)
    parts = Statistics.of(mean, std)
    for key in ("count", "mean", "scatter", "noise"):
        np.testing.assert_allclose(getattr(parts, key), getattr(whole, key), rtol=STATISTICS)


def test_without_std_nothing_is_said_about_noise():
    ((mean, std),) = drawn([9], 1)
    found = Statistics.of(mean, None).merged(Statistics.of(mean, std))
    assert found.noise is None and found.dead is None and found.described()["dead_share"] is None


def test_they_survive_json_bit_for_bit():
    (first, second) = (Statistics.of(*part) for part in drawn([5, 6], 2))
    back = Statistics.from_dict(json.loads(json.dumps(first.to_dict())))
    assert back.merged(second).to_dict() == first.merged(second).to_dict()
    with pytest.raises(ValueError, match="shapes"):
        Statistics.from_dict(first.to_dict() | {"scatter": [1.0]})
