"""Compiling in another process: what it tells, and what becomes of one that hangs or breaks down."""

import sys

import compiling_here
import jax
import pytest

from earvae_jax.errors import UserError
from earvae_jax.targets import worker
from earvae_jax.targets.catalogue import Target
from earvae_jax.targets.compiling import compile_for

H100 = Target.parse("h100")
PLAN = "compiling_here:squares"


def events(**request) -> list[dict]:
    found: list[dict] = []
    request = {"target": "h100", "plan": PLAN, "skip": [], "largest": False, **request}
    worker.work(request, lambda event: found.append(dict(event)), jax.devices())
    return found


def test_what_a_worker_tells():
    plan, begun, first, _, second = events(arguments={"size": 64})
    assert plan["programs"] == [{"name": "square 1", "runs": 3}, {"name": "square 4", "runs": 3}]
    assert plan["resident"] == {"weights": 1000}
    assert begun == {"event": "begin", "program": "square 1"}
    assert first["reading"]["operations"] == {"tf32": 2 * 64**3}
    assert second["reading"]["operations"] == {"tf32": 4 * 2 * 64**3}
    assert first["compile_seconds"] > 0
    assert first["reading"]["memory"]["arguments"] == 4 * 64**2


def test_what_is_skipped():
    assert [event["program"] for event in events(arguments={"size": 8}, skip=["square 1"])[1:]] == [
        "square 4"
    ] * 2


def test_the_largest_that_fits(monkeypatch):
    each = 2 * 4 * 64**2  # argument and result; the sine is in place
    monkeypatch.setattr(worker, "usable_memory", lambda accelerator: 1000 + 20 * each)
    *_, found = events(arguments={"size": 64}, largest=True)
    assert found["event"] == "largest"
    assert found["what"] == "--count"
    assert 15 <= found["size"] <= 20  # the compiler may add a little
    assert found["compilations"] <= 3


def test_a_program_that_is_too_large(monkeypatch):
    def refused(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm.\nMore."
        )

    monkeypatch.setattr(worker, "read", refused)
    found = [event for event in events(arguments={"size": 8}) if event["event"] == "failed"]
    assert len(found) == 2
    assert found[0]["too_large"]
    assert "Used 17.50G of 15.75G" in found[0]["message"]
    assert "\n" not in found[0]["message"]
    told: list[dict] = []
    compiler = worker._Compiler(compiling_here.squares(_Size(8), []), told.append)
    program = compiling_here.squares(_Size(8), []).programs[0]
    assert compiler.memory(program) == int(17.5 * (1 << 30))


class _Size:
    def __init__(self, size: int):
        self.size = size


def compiled(words, *, size: int = 16, timeout: float = 300.0, find_largest: bool = False):
    return compile_for(
        H100,
        PLAN,
        {"size": size},
        environment={"JAX_PLATFORMS": "cpu"},
        find_largest=find_largest,
        timeout=timeout,
        worker=words,
    )


def test_a_real_worker():
    outcome = compiled(compiling_here.WORKER, find_largest=True)
    assert outcome.names == ["square 1", "square 4"]
    assert outcome.compiled.keys() >= {"square 1", "square 4"}
    assert not outcome.failed
    assert outcome.largest[0]["size"] > 4
    with pytest.raises(UserError, match="the size is not above zero"):
        compiled(compiling_here.WORKER, size=0)


def script(body: str) -> tuple[str, ...]:
    """A worker that tells its plan of two programs and then does something."""
    return (
        sys.executable,
        "-c",
        "import json, os, signal, sys, time\n"
        "request = json.load(sys.stdin)\n"
        "def emit(**event): print(json.dumps(event), flush=True)\n"
        "emit(event='plan', subject='s', resident={}, "
        "programs=[{'name': 'one', 'runs': 1}, {'name': 'two', 'runs': 1}])\n"
        "for name in ('one', 'two'):\n"
        "    if name in request['skip']: continue\n"
        "    emit(event='begin', program=name)\n"
        f"    if name == 'one': {body}\n"
        "    emit(event='compiled', program=name, reading={})\n"
        "if request['largest']:\n"
        "    emit(event='begin', program='three'); os._exit(3)\n"
        "emit(event='end')\n",
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("time.sleep(60)", "did not end in 2 s; --compile-timeout waits longer"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the system killed the compiler"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11: it said nothing"),
        (
            "sys.stderr.write('a\\nlast words\\n'); sys.stderr.flush(); os._exit(7)",
            "with status 7: last words",
        ),
        ("sys.exit(0)", "with status 0"),
    ],
)
def test_a_program_that_does_not_compile_keeps_no_other_from_it(body, problem):
    outcome = compiled(script(body), timeout=2, find_largest=True)
    assert problem in outcome.failed["one"]["message"]
    assert list(outcome.compiled) == ["two"]
    assert outcome.largest == []


def test_a_search_that_breaks_down_keeps_what_was_found():
    outcome = compiled(script("pass"), timeout=30, find_largest=True)
    assert list(outcome.compiled) == ["one", "two"]
    assert outcome.stopped == "three: the compiler ended with status 3: it said nothing"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("emit(event='error', message='no such file', foreseen=True)", "^no such file$"),
        ("emit(event='error', message='KeyError: 3', foreseen=False)", "KeyError: 3.*EARVAE_DEBUG"),
    ],
)
def test_an_error_of_the_worker_is_one_line(words, reason):
    with pytest.raises(UserError, match=reason):
        compiled(script(words), timeout=30)


def test_a_worker_that_cannot_begin():
    with pytest.raises(UserError, match="status 5: no module of that name"):
        compiled(
            (
                sys.executable,
                "-c",
                "import sys; print('no module of that name', file=sys.stderr); sys.exit(5)",
            )
        )


def test_logged_lines_are_handed_on(caplog):
    compiled(script("emit(event='log', level=30, message='a file is left out')"), timeout=30)
    assert "a file is left out" in caplog.text
