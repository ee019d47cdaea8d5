"""What the page's handlers answer, without a server and a browser."""

import asyncio
from types import SimpleNamespace

import pytest

from earvae_jax import demo
from earvae_jax.infer.web_app.limits import Limits
from earvae_jax.infer.web_app.models import Models
from earvae_jax.infer.web_app.visitors import Turns, Visitors

pytest.importorskip("gradio", reason="the extra demo is not installed")

from earvae_jax.infer.web_app.page import Handlers, framed

VISITOR = SimpleNamespace(session_hash="one")


@pytest.fixture
def handlers(tmp_path, small_checkpoint):
    (tmp_path / "server").mkdir()
    visitors = Visitors(tmp_path / "server")
    limits = Limits(seconds=1, megabytes=0.01)
    yield Handlers(Models(str(small_checkpoint)), visitors, Turns(0), limits)
    visitors.close()


def answers(generator, count: int) -> list[tuple]:
    """The first answers of a handler, whose page is then closed."""

    async def take():
        taken = [await anext(generator) for _ in range(count)]
        await generator.aclose()
        return taken

    return asyncio.run(take())


def test_without_a_song_the_answer_says_what_to_do(handlers):
    ((status, view, *_),) = answers(handlers.reconstruct(None, "given", "float32", "mean", 0, VISITOR), 1)
    assert "drop a song first" in status and 'role="alert"' in status and view == ""
    assert handlers.look(None, VISITOR) == ""


def test_the_bundled_clip_is_taken_whatever_the_limits(handlers):
    assert demo.CLIP.stat().st_size > handlers._limits.bytes
    first, second = answers(handlers.bundled("given", "float32", "mean", 0, VISITOR), 2)
    assert first[0] == "" and "stage" in second[1]


def test_only_so_many_visitors_wait(handlers):
    async def two():
        one, other = (handlers.bundled("given", "float32", "mean", 0, VISITOR) for _ in range(2))
        for generator in (one, one, other):
            await anext(generator)
        answer = await anext(other)
        await one.aclose()
        return answer

    assert "0 visitors are waiting already: try again" in asyncio.run(two())[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "/etc/passwd"}, "offers no such model"),
        ({"latent": "both"}, "latents are the mean or a sample"),
        ({"latent": "sample", "seed": 1e30}, "it has more than 64 bits"),
    ],
)
def test_what_the_page_does_not_offer_is_refused(handlers, change, message):
    chosen = {"model": "given", "dtype": "float32", "latent": "mean", "seed": 0} | change

    async def last():
        return [answer async for answer in handlers.bundled(**chosen, request=VISITOR)][-1]

    assert message in asyncio.run(last())[0]


def test_after_the_page_is_closed_nothing_is_taken(handlers, tmp_path):
    handlers.leave(VISITOR)
    song = handlers._visitors.folder / "a" / "song.mp3"
    song.parent.mkdir()
    song.write_text("")
    assert "reload it" in handlers.look(str(song), VISITOR)
    assert "reload it" in answers(handlers.bundled("given", "float32", "mean", 0, VISITOR), 1)[0][0]


def test_the_report_stays_within_its_frame():
    page = '<html><body>"quoted" & </iframe></body></html>'
    frame = framed(page)
    assert frame.count("</iframe>") == 1 and frame.endswith("</iframe>")
    assert "embedded" in frame
