"""What visitors leave on disk goes with them, and computations keep their order."""

import os
import time

import pytest

from earvae_jax.errors import UserError
from earvae_jax.infer.web_app.visitors import Turns, Visitors


@pytest.fixture
def visitors(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    visitors = Visitors(folder)
    yield visitors
    visitors.close()


def uploaded(visitors, content: str, name: str = "song.mp3"):
    """A file as the server lays it: in a folder named after its content."""
    path = visitors.folder / content / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def test_a_visit_ends_with_its_files(visitors):
    song = visitors.claim("one", uploaded(visitors, "a"))
    visitor = visitors.visitor("one")
    (visitor.folder / "result.wav").write_text("")
    other = visitors.visitor("other")
    visitors.leave("one")
    assert visitor.gone.is_set() and not other.gone.is_set()
    assert not song.exists()
    assert list(visitors.folder.iterdir()) == [other.folder]


def test_a_closed_page_begins_no_new_visit(visitors):
    visitors.visitor("one")
    for name in ("one", "never seen"):
        visitors.leave(name)
        with pytest.raises(UserError, match="reload"):
            visitors.visitor(name)
    assert not list(visitors.folder.iterdir())


def test_two_visitors_share_a_song(visitors):
    song = uploaded(visitors, "a")
    for name in ("one", "other"):
        visitors.claim(name, song)
    visitors.leave("one")
    assert song.exists()
    visitors.leave("other")
    assert not song.exists()


def test_a_name_is_no_path(visitors):
    folder = visitors.visitor("../../elsewhere").folder
    assert folder.parent == visitors.folder


def test_a_file_of_the_package_is_no_upload(visitors, tmp_path):
    clip = tmp_path / "package" / "clip.flac"
    clip.parent.mkdir()
    clip.write_text("")
    visitors.claim("one", clip)
    visitors.leave("one")
    assert clip.exists()


def test_uploads_that_nobody_claimed_are_swept(visitors):
    claimed = visitors.claim("one", uploaded(visitors, "a"))
    orphan, fresh = uploaded(visitors, "b"), uploaded(visitors, "c")
    partial = visitors.folder / "tmp123"
    partial.write_text("half of a song")
    long_ago = time.time() - 3600
    for path in (claimed.parent, orphan.parent, partial):
        os.utime(path, (long_ago, long_ago))
    visitors.sweep()
    assert claimed.exists() and fresh.exists() and visitors.visitor("one").folder.exists()
    assert not orphan.parent.exists() and not partial.exists()


def test_the_end_of_the_server_leaves_nothing(visitors):
    visitor = visitors.visitor("one")
    visitors.claim("one", uploaded(visitors, "a"))
    uploaded(visitors, "orphan")
    visitors.close()
    assert not visitors.folder.exists()
    assert visitor.gone.is_set()
    with pytest.raises(UserError):
        visitors.visitor("late")


def test_turns_keep_the_order():
    turns = Turns(waiting=2)
    first, second, third = (turns.join() for _ in range(3))
    with pytest.raises(UserError, match="2 visitors are waiting already"):
        turns.join()
    assert [ticket.before for ticket in (first, second, third)] == [0, 1, 2]
    second.leave()
    second.leave()
    assert [ticket.before for ticket in (first, third)] == [0, 1]
    first.leave()
    assert third.before == 0
