"""The largest size that fits, with few compilations."""

from hypothesis import given
from hypothesis import strategies as st

from earvae_jax.targets.fitting import Largest, largest


@given(
    base=st.integers(0, 10**9),
    each=st.integers(10**5, 10**9),
    limit=st.integers(1, 10**11),
    now=st.integers(1, 64),
    step=st.sampled_from([1, 2, 8]),
)
def test_on_a_line(base, each, limit, now, step):
    found = largest(limit, lambda size: base + each * size, now=now, step=step, least=step)
    expected = max(0, (limit - base) // each) // step * step
    assert found.size == min(expected, (1 << 20) - step)
    assert len(found.compiled) <= 5
    assert found.size == 0 or found.size in found.compiled
    assert all(size % step == 0 for size in found.compiled)


@given(limit=st.integers(10**6, 10**9), bend=st.integers(1, 100), now=st.integers(1, 32))
def test_what_is_found_was_compiled_and_fits(limit, bend, now):
    """A compiler that makes do with less when memory is short: the line is only a guess."""

    def memory(size: int) -> int:
        return 10**6 * size - (bend * 10**5 * size // 20 if size > 20 else 0) + size**2

    found = largest(limit, memory, now=now, step=1, least=1)
    assert len(found.compiled) <= 6
    assert found.size == 0 or memory(found.size) <= limit


def test_a_compiler_that_only_refuses():
    found = largest(100, lambda size: size * 10 if size <= 10 else None, now=4, step=1, least=1)
    assert found.size == 10
    assert largest(100, lambda size: None, now=8, step=1, least=1).size == 0


def test_a_smallest_size():
    found = largest(100, lambda size: size, now=200, step=10, least=50)
    assert found.size == 100
    assert largest(40, lambda size: size, now=200, step=10, least=50) == Largest(0, (200, 100, 50))


def test_memory_that_does_not_grow():
    assert largest(100, lambda size: 10, now=1, step=1, least=1).size > 1000
