"""The command's own part: whose words reach the person who called it."""

import logging

import pytest
from places import ROOT

from earvae_jax.command import _is_ours_or_serious

OURS = sorted(
    path for folder in ("earvae_jax", "convert", "infer", "train") for path in (ROOT / folder).rglob("*.py")
)


def record(path, level=logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("absl", level, str(path), 1, "said", None, None)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_room_is_heard(path):
    assert _is_ours_or_serious(record(path))


def test_libraries_are_heard_when_something_is_wrong():
    elsewhere = "/usr/lib/python3/site-packages/jax/_src/dispatch.py"
    assert not _is_ours_or_serious(record(elsewhere))
    assert _is_ours_or_serious(record(elsewhere, logging.WARNING))
    assert not _is_ours_or_serious(
        record("/usr/lib/python3/site-packages/orbax/checkpoint.py", logging.ERROR)
    )
