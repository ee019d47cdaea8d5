"""Reading ahead and writing behind: order, errors, and threads that end."""

import itertools
import threading
import time

import pytest

from earvae_jax.infer.engine.threads import Abandoned, Writer, prefetched


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_prefetched_keeps_the_order_and_reads_no_further_than_asked():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    taken = prefetched([items()], 2)
    assert next(taken) == 0
    time.sleep(0.05)
    assert len(made) <= 1 + 2 + 1  # taken, waiting, and the one that is being handed over
    assert list(taken) == list(range(1, 20))


def test_prefetched_raises_what_the_source_raises_after_its_items():
    def items():
        yield 1
        raise KeyError("broken")

    taken = prefetched([items()], 4)
    assert next(taken) == 1
    with pytest.raises(KeyError, match="broken"):
        next(taken)


def test_closing_ends_an_endless_source():
    taken = prefetched([itertools.count()], 1)
    assert next(taken) == 0
    taken.close()


def test_one_thread_takes_source_after_source():
    assert list(prefetched([[1, 2], [], [3]], 1)) == [1, 2, 3]


def test_several_threads_read_several_sources_at_a_time():
    both = threading.Barrier(2, timeout=30)  # broken, and raised here, if one source waited for the other

    def items(first):
        both.wait()
        yield from range(first, first + 5)

    taken = list(prefetched(map(items, (0, 10)), 1, threads=2))
    assert sorted(taken) == [*range(5), *range(10, 15)]
    assert [number for number in taken if number < 10] == list(range(5))


@pytest.mark.parametrize("threads", [1, 3])
def test_every_item_comes_once_whatever_the_number_of_threads(threads):
    sources = [[(source, item) for item in range(source % 4)] for source in range(20)]
    taken = list(prefetched(sources, 2, threads=threads))
    assert sorted(taken) == sorted(itertools.chain(*sources))
    for source in range(20):
        assert [item for item in taken if item[0] == source] == sources[source]


def test_an_error_in_one_of_several_threads_is_raised_and_ends_the_others():
    def broken():
        raise KeyError("broken")
        yield

    with pytest.raises(KeyError, match="broken"):
        list(prefetched([itertools.count(), broken()], 1, threads=2))


def test_without_threads_everything_comes_in_order_when_it_is_asked_for():
    asked = []

    def items(first):
        for number in range(first, first + 3):
            asked.append(number)
            yield number

    taken = prefetched(map(items, (0, 10)), 4, threads=0)
    assert [next(taken), next(taken)] == asked == [0, 1]
    assert list(taken) == [2, 10, 11, 12]


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_writer_that_waits_for_a_second_item(count):
    """It writes a single item where `finish` is called."""
    written, where = [], []

    def write(items):
        written.extend(items)
        where.append(threading.current_thread())

    writer = Writer(write, depth=1, at_once=False)
    for number in range(count):
        writer.put(number)
    writer.finish()
    assert written == list(range(count)) and writer.error is None
    assert (where == [threading.main_thread()]) == (count < 2)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_such_a_writer_can_fail_and_be_abandoned(count):
    writer = Writer(list, at_once=False)
    for number in range(count):
        writer.put(number)
    writer.abandon()
    assert isinstance(writer.error, Abandoned)
    writer = Writer(lambda items: 1 / 0, depth=2, at_once=False)
    for number in range(count):
        writer.put(number)
    writer.finish()
    assert isinstance(writer.error, ZeroDivisionError)


def test_writer_takes_everything_in_order():
    written = []
    writer = Writer(lambda items: written.extend(items), depth=1)
    for number in range(10):
        writer.put(number)
    writer.finish()
    assert written == list(range(10)) and writer.error is None


def test_a_failed_writer_keeps_its_error_and_blocks_nobody():
    def write(items):
        next(items)
        raise OSError("full")

    writer = Writer(write, depth=1)
    for number in range(50):
        writer.put(number)
    writer.finish()
    assert isinstance(writer.error, OSError)


def test_an_abandoned_writer_cleans_up():
    cleaned = []

    def write(items):
        try:
            for _ in items:
                pass
        finally:
            cleaned.append(True)

    writer = Writer(write)
    writer.put(1)
    writer.abandon()
    assert cleaned and isinstance(writer.error, Abandoned)


def test_a_failed_writer_can_be_abandoned():
    writer = Writer(lambda items: 1 / 0, depth=1)
    for number in range(5):
        writer.put(number)
    writer.abandon()
    assert isinstance(writer.error, ZeroDivisionError)
