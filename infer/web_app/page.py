"""The page: what stands on it, and what happens when something is dropped or pressed."""

import html
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import gradio as gr

from earvae_jax import demo
from earvae_jax.errors import UserError
from earvae_jax.infer.web_app.interpolation import SECONDS, Interpolation
from earvae_jax.infer.web_app.jobs import followed
from earvae_jax.infer.web_app.limits import Limits, clock, described
from earvae_jax.infer.web_app.live_view import told
from earvae_jax.infer.web_app.models import DTYPES, Models
from earvae_jax.infer.web_app.reconstruction import Reconstruction, Settings
from earvae_jax.infer.web_app.visitors import Turns, Visitors

_TITLE = "Hear what a music autoencoder keeps"
_NO_SONG = "drop a song first, or take the bundled clip"
# The report is a page of its own, as tall as its content.
_FIT = (
    "const page = this.contentDocument.body; "
    "new ResizeObserver(() => { this.style.height = page.offsetHeight + 'px' }).observe(page)"
)


class Handlers:
    """What happens when a visitor does something; each handler gives the new values of components."""

    def __init__(self, models: Models, visitors: Visitors, turns: Turns, limits: Limits):
        self._models, self._visitors, self._turns, self._limits = models, visitors, turns, limits

    def look(self, song: str | None, request: gr.Request) -> str:
        """Says what was dropped, or what is wrong with it."""
        if song is None:
            return ""
        try:
            return told(described(self._visitors.claim(_name(request), song), self._limits))
        except UserError as error:
            return told(str(error), kind="error")

    async def reconstruct(
        self, song: str | None, model: str, dtype: str, latent: str, seed: float, request: gr.Request
    ) -> AsyncGenerator[tuple, None]:
        """Status, live view, audio, latents and report while a song is computed."""
        try:
            if song is None:
                raise UserError(_NO_SONG)
            path = self._visitors.claim(_name(request), song)
            described(path, self._limits)
        except UserError as error:
            yield told(str(error), kind="error"), "", _hidden(), _hidden(), ""
            return
        async for values in self._reconstruct(path, model, dtype, latent, seed, request, self._limits):
            yield values

    async def bundled(
        self, model: str, dtype: str, latent: str, seed: float, request: gr.Request
    ) -> AsyncGenerator[tuple, None]:
        """Like `reconstruct`, with the clip that comes with the package, which no limit refuses."""
        limits = Limits(seconds=math.inf)
        async for values in self._reconstruct(demo.CLIP, model, dtype, latent, seed, request, limits):
            yield values

    async def _reconstruct(
        self,
        song: Path,
        model: str,
        dtype: str,
        latent: str,
        seed: float,
        request: gr.Request,
        limits: Limits,
    ) -> AsyncGenerator[tuple, None]:
        try:
            settings = Settings(model, dtype, latent, int(seed or 0))  # type: ignore[arg-type]
            visitor = self._visitors.visitor(_name(request))
            job = Reconstruction(visitor, song, settings, self._models, limits)
            yield "", job.view(), _hidden(), _hidden(), ""
            shown, saves = "", False
            async for _ in followed(job, self._turns):
                if job.decoded and not saves:  # measuring takes as long again
                    saves = True
                    yield "", job.view(), _saves(job.audio), _saves(job.latents), ""
                elif (view := job.view()) != shown:
                    shown = view
                    yield gr.skip(), view, gr.skip(), gr.skip(), gr.skip()
            done = told("Done. The report below plays the loudest part; the buttons save the whole.")
            yield done, "", _saves(job.audio), _saves(job.latents), framed(job.report)
        except UserError as error:
            yield told(str(error), kind="error"), "", _hidden(), _hidden(), ""

    async def interpolate(
        self, one: str | None, other: str | None, weight: float, model: str, dtype: str, request: gr.Request
    ) -> AsyncGenerator[tuple, None]:
        """Status, live view and audio while the song between two songs is computed."""
        try:
            if one is None or other is None:
                raise UserError("drop two songs first")
            songs = self._visitors.claim(_name(request), one), self._visitors.claim(_name(request), other)
            for path in songs:
                described(path, self._limits)
            visitor = self._visitors.visitor(_name(request))
            job = Interpolation(visitor, songs, weight, Settings(model, dtype), self._models, self._limits)
            shown = ""
            async for _ in followed(job, self._turns):
                if (view := job.view()) != shown:
                    shown = view
                    yield "", view, gr.skip()
            job.stage, job.share = "Done", 1.0
            yield "", job.view(), str(job.audio)
        except UserError as error:
            yield told(str(error), kind="error"), "", None

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._visitors.leave(_name(request))


def build(models: Models, visitors: Visitors, turns: Turns, limits: Limits, dtype: str) -> gr.Blocks:
    """Lays the page out; the theme and the style belong to the server."""
    handlers = Handlers(models, visitors, turns, limits)
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {_TITLE}\n{_introduction(limits)}")
        with gr.Row():
            model = gr.Dropdown(
                models.choices, value=models.first, label="Model", elem_id="model", scale=3, min_width=260
            )
            dtypes = gr.Dropdown(
                list(DTYPES), value=dtype, label="Number format", elem_id="dtype", min_width=200
            )
        with gr.Tab("Reconstruct"):
            _reconstruct_tab(handlers, model, dtypes)
        with gr.Tab("Interpolate"):
            _interpolate_tab(handlers, model, dtypes)
        blocks.unload(handlers.leave)
    # `Turns` puts them in order, and tells the visitors.
    blocks.queue(api_open=False, default_concurrency_limit=None)
    return blocks


def framed(page: str) -> str:
    """A page of HTML inside the page, with its own style and scripts."""
    page = html.escape(page.replace("<body>", '<body class="embedded">', 1))
    return f'<iframe class="report" title="Report" onload="{_FIT}" srcdoc="{page}"></iframe>'


def _reconstruct_tab(handlers: Handlers, model: gr.Dropdown, dtype: gr.Dropdown) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            song = _song("Song", "song")
            latent = gr.Radio(["mean", "sample"], value="mean", label="Latents", elem_id="latent")
            seed = gr.Number(0, label="Seed", precision=0, visible=False, elem_id="seed")
            start = gr.Button("Reconstruct", variant="primary", elem_id="reconstruct")
            clip = gr.Button("Take the bundled clip", elem_id="bundled", visible=demo.CLIP.exists())
        with gr.Column(scale=2, min_width=280):
            status, view = _html("status"), _html("view")
            with gr.Row(elem_id="save"):
                audio = gr.DownloadButton("Save the audio (WAV)", visible=False, elem_id="audio")
                latents = gr.DownloadButton("Save the latents (.npz)", visible=False, elem_id="latents")
    report = _html("report")
    latent.change(lambda chosen: gr.Number(visible=chosen == "sample"), latent, seed, **_quiet(), queue=False)
    song.upload(handlers.look, song, status, **_quiet())
    song.clear(lambda: "", None, status, **_quiet(), queue=False)
    outputs = [status, view, audio, latents, report]
    start.click(handlers.reconstruct, [song, model, dtype, latent, seed], outputs, **_quiet())
    clip.click(handlers.bundled, [model, dtype, latent, seed], outputs, **_quiet())


def _interpolate_tab(handlers: Handlers, model: gr.Dropdown, dtype: gr.Dropdown) -> None:
    gr.Markdown(
        f"Decodes the line between the latents of two songs, over the first {SECONDS:g} seconds of both. "
        "It shows how the latents lie; it is no mix of the two."
    )
    with gr.Row():
        one, other = _song("First song", "one"), _song("Second song", "other")
    weight = gr.Slider(
        0, 1, value=0.5, step=0.05, label="From the first song (0) to the second (1)", elem_id="weight"
    )
    start = gr.Button("Interpolate", variant="primary", elem_id="interpolate")
    status, view = _html("between-status"), _html("between-view")
    audio = gr.Audio(label="Between", interactive=False, elem_id="between", buttons=["download"])
    for song in (one, other):
        song.upload(handlers.look, song, status, **_quiet())
    inputs, outputs = [one, other, weight, model, dtype], [status, view, audio]
    gr.on([start.click, weight.release], handlers.interpolate, inputs, outputs, **_quiet())


def _introduction(limits: Limits) -> str:
    return (
        "A song is encoded into latents and decoded again on this machine. Listen to both, and to the "
        f"difference. Songs of up to {clock(limits.seconds)} and {limits.megabytes:g} MB; nothing is kept "
        "when the page is closed."
    )


def _song(label: str, name: str) -> gr.File:
    song = gr.File(label=label, type="filepath", file_count="single", height=140, min_width=280, elem_id=name)
    # Gradio's own would lay an empty file beside the upload each time.
    song.preprocess = lambda upload: None if upload is None else upload.path
    return song


def _hidden() -> gr.DownloadButton:
    return gr.DownloadButton(value=None, visible=False)


def _saves(path: Path) -> gr.DownloadButton:
    return gr.DownloadButton(value=str(path), visible=True)


def _html(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, js_on_load=None, apply_default_css=False)


def _quiet() -> dict[str, Any]:
    """Options of events: no overlay hides what the page shows itself, and no API offers them."""
    return {"show_progress": "hidden", "api_visibility": "private"}


def _name(request: gr.Request) -> str:
    return str(request.session_hash)
