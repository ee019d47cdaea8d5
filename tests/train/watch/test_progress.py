"""The pace that a training run reports: of recent steps of one kind, without what they took to compile."""

import light_training
import pytest

from earvae_jax.train.watch import progress
from earvae_jax.train.watch.progress import Progress

CONFIG = light_training.config(steps=1000, log_every=1)
BATCH_SECONDS = CONFIG.data.batch_size * CONFIG.data.crop_samples / 8000


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(clock, steps):
    """Runs steps as the loop does, (adversarial, seconds to compile, seconds to run); the lines by step."""
    made, found, before = Progress(CONFIG, 8000), {}, None
    for done, (adversarial, compiling, running) in enumerate(steps, start=1):
        clock[0] += compiling  # giving a step to the device waits until it is compiled …
        made.started(done, adversarial=adversarial)
        if before is not None:
            clock[0] += before  # … and then the step before is read, when it has run
            found[done - 1] = made.line(made.add({"loss": 1.0}, done - 1), done - 1, {"steps": 0, "files": 2})
        before = running
    return found


def test_pace_is_that_of_the_present_kind(clock):
    warm, adversarial = [(False, 0, 1.0)] * 20, [(True, 0, 4.0)] * 20
    steps = [(False, 60, 1.0), *warm, (True, 90, 4.0), *adversarial]
    found = lines(clock, steps)
    assert "left" not in found[1] and "left" not in found[22]
    assert f"{BATCH_SECONDS / 1:.2f} s of audio per s, 0:16:20 left" in found[20]
    assert f"{BATCH_SECONDS / 4:.2f} s of audio per s, 1:04:00 left" in found[40]


def test_pace_is_recent(clock):
    found = lines(clock, [(False, 0, 1.0)] * 300 + [(False, 0, 2.0)] * 200)
    assert "0:17:20 left" in found[480]


def test_what_happens_between_steps_does_not_count(clock):
    made = Progress(CONFIG, 8000)
    made.started(1, adversarial=False)
    made.add({}, 1)
    for done in range(2, 6):
        clock[0] += 100  # validation
        made.pause()
        clock[0] += 2
        made.started(done, adversarial=False)
        averages = made.add({}, done)
    assert "0:33:10 left" in made.line(averages, 5, {})


def test_what_was_skipped_is_said_once_there_is_some():
    made = Progress(CONFIG, 8000)
    assert "skipped" not in made.line({}, 1, {"steps": 0, "files": 0})
    assert made.line({"loss": 2.0}, 1, {"steps": 3, "files": 1}).endswith(
        "loss 2  3 steps skipped  1 files skipped"
    )
