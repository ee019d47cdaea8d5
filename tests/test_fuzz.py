"""The fuzz campaign: a short one, and that it finds the faults that are planted for it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz import campaign, outcomes, table
from fuzz.cases import planted
from fuzz.cases.domains import NAMES, domain_of

CASES = 80  # a few dozen, of every domain
SOFT = [name for name in planted.PLANTED if name not in ("crash", "hang")]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, outcomes.Outcome]:
    """The outcomes of a short campaign and of every planted case, by number."""
    pytest.importorskip("torch", reason="weights are made with torch")
    pytest.importorskip("av", reason="audio is made with ffmpeg")
    state = campaign.State(tmp_path_factory.mktemp("fuzz"), seed=0)
    worker = campaign.Worker(state, "0", campaign.Limits(seconds=20, megabytes=2000))
    numbers = [*range(CASES), *map(planted.number_of, [*SOFT, "crash"])]
    try:
        found = {number: _outcome(worker, number) for number in numbers}
        worker.limits = campaign.Limits(seconds=2, megabytes=2000)
        number = planted.number_of("hang")
        return found | {number: _outcome(worker, number)}
    finally:
        worker.stop()


def _outcome(worker: campaign.Worker, number: int) -> outcomes.Outcome:
    while not worker.ready:
        worker.look()
        time.sleep(0.02)
    worker.give(number)
    while (outcome := worker.look()) is None:
        time.sleep(0.005)
    return outcome


@pytest.mark.parametrize("domain", NAMES)
def test_odd_inputs_end_in_a_result_or_one_line(found, domain):
    cases = [outcome for number, outcome in found.items() if number >= 0 and outcome.domain == domain]
    assert len(cases) >= 8 and any(outcome.kind == "line" for outcome in cases)
    faults = [outcome for outcome in cases if outcome.kind == "fault"]
    assert not faults, "\n".join(map(table.described, faults))


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("traceback", "traceback: KeyError"),
        ("several_lines", "several lines"),
        ("no_name", "names no file"),
        ("escape", "escape: files outside"),
        ("far_escape", "escape: open"),
        ("payload", "payload"),
        ("program", "payload: os.system"),
        ("noise", "prints besides its messages"),
        ("half_written", "half-written"),
        ("memory", "memory"),
        ("crash", "crash: SIGABRT"),
        ("hang", "hang"),
    ],
)
def test_planted_faults_are_found(found, name, cause):
    outcome = found[planted.number_of(name)]
    assert outcome.kind == "fault" and cause in outcome.cause, table.described(outcome)


@pytest.mark.parametrize(("name", "kind"), [("result", "result"), ("line", "line")])
def test_what_is_no_fault_is_told_apart(found, name, kind):
    assert found[planted.number_of(name)].kind == kind


def test_every_part_of_a_campaign_has_all_domains():
    for start in range(0, 100, 20):
        assert {domain_of(number) for number in range(start, start + 20)} == set(NAMES)


def test_an_interrupted_campaign_continues(tmp_path):
    state = campaign.State(tmp_path, seed=3)
    for number in range(3):
        state.add(outcomes.Outcome(number, domain_of(number), "fault", "x", cause="y"))
    state.add(outcomes.Outcome(1, domain_of(1), "line", "x"))
    with state.record.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": 4})[:9])  # killed here
    known = campaign.State(tmp_path, seed=3).outcomes(10)
    assert [(outcome.number, outcome.kind) for outcome in known] == [(0, "fault"), (1, "line"), (2, "fault")]
    assert not campaign.State(tmp_path, seed=4).outcomes(10)
    campaign.run(state, 3, campaign.Limits())  # no worker is needed: all are known
    state.forget_faults()
    assert [outcome.number for outcome in state.outcomes(10)] == [1]


def test_the_command_tells_faults_by_its_exit_status(tmp_path):
    words = [sys.executable, "-m", "tests.fuzz", "--state", tmp_path, "--cases", "1"]
    state = campaign.State(tmp_path, seed=0)
    for kind, status in (("line", 0), ("fault", 1)):
        state.add(outcomes.Outcome(0, domain_of(0), kind, "x", cause="some cause"))
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("some cause" in done.stdout) == bool(status)
