"""What TensorBoard gets to see, and that no disk error of its own ends a run."""

import struct
import time

import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="training needs the extra `train`")

from earvae_jax.train.watch.board import Board

AUDIO = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4000, 2)).astype(np.float32)


def events(folder):
    """All events of a folder in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def points(folder) -> dict[str, list[int]]:
    """Steps by tag, of what TensorBoard shows: a start voids what older files hold from its step on."""
    from tensorboardX.proto.event_pb2 import SessionLog

    shown: dict[str, list[int]] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            shown = {tag: [step for step in steps if step < event.step] for tag, steps in shown.items()}
        for value in event.summary.value:
            shown.setdefault(value.tag, []).append(event.step)
    return shown


def test_a_killed_run_that_continues_shows_each_step_once(tmp_path):
    killed = Board(tmp_path)
    for step in range(1, 6):
        killed.scalars(step, "train", {"loss": 1.0 / step})
    killed.pairs(5, AUDIO, AUDIO, 8000)  # writes what is buffered
    del killed
    time.sleep(1.1)  # files are named by the second
    board = Board(tmp_path, after=3)
    for step in range(4, 7):
        board.scalars(step, "train", {"loss": 1.0 / step})
    board.close()
    shown = points(tmp_path)
    assert shown["train/loss"] == [1, 2, 3, 4, 5, 6]
    assert shown["audio/0_original"] == []


def test_audio_that_is_not_finite_is_written_as_silence(tmp_path):
    board = Board(tmp_path)
    board.pairs(1, AUDIO, AUDIO * np.float32(np.nan), 8000)
    board.close()
    assert points(tmp_path)["spectrogram/1_reconstruction"] == [1]


@pytest.mark.parametrize("when", ["write", "flush", "close"])
def test_a_full_disk_ends_the_board_alone(tmp_path, monkeypatch, caplog, when):
    from tensorboardX.record_writer import RecordWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    board = Board(tmp_path)
    monkeypatch.setattr(RecordWriter, when, full)
    for step in range(200):  # more than any queue holds
        board.scalars(step, "train", {"loss": 1.0})
    board.pairs(200, AUDIO, AUDIO, 8000)
    board.close()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "nothing more is written for TensorBoard (No space left on device)" in warning


def test_a_folder_that_cannot_be_made_ends_the_board_alone(tmp_path, caplog):
    (tmp_path / "tensorboard").touch()
    board = Board(tmp_path / "tensorboard")
    board.scalars(1, "train", {"loss": 1.0})
    board.close()
    assert len(caplog.records) == 1
