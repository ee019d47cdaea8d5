"""Numbers that flags take: finite and above zero, and refused with the word and what was expected."""

import argparse

import pytest

from earvae_jax.flag_types import positive, seed


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(int, "3", 3), (float, "0.5", 0.5), (float, "1e3", 1000.0)]
)
def test_positive_numbers_are_taken(kind, text, value):
    taken = positive(kind)(text)
    assert taken == value and type(taken) is kind


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "0"),
        (int, "-1"),
        (int, "1.5"),
        (int, ""),
        (float, "0"),
        (float, "inf"),
        (float, "nan"),
        (float, "a"),
    ],
)
def test_others_are_refused_by_name(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=rf"^'{text}' is not a positive number of seconds$"):
        positive(kind, "seconds")(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a positive number$"):
        positive(kind)(text)


@pytest.mark.parametrize("text", ["0", "-5", str(2**63 - 1), str(-(2**63))])
def test_seeds_are_taken(text):
    assert seed(text) == int(text)


@pytest.mark.parametrize("text", ["", "1.5", "nan", str(2**63), "-99999999999999999999"])
def test_what_is_no_seed(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}'"):
        seed(text)
