"""The server of the page: for this machine alone unless told otherwise, no telemetry, nothing left behind."""

import contextlib
import errno
import importlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging

from earvae_jax.borders import reason
from earvae_jax.checkpoints import read_info
from earvae_jax.errors import UserError, require
from earvae_jax.infer.web_app.limits import Limits
from earvae_jax.infer.web_app.models import DTYPES, Models
from earvae_jax.infer.web_app.visitors import Turns, Visitors
from earvae_jax.known_models import by_name

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PORTS = range(7860, 7960)
_SESSIONS = 64  # pages whose values the server holds in memory, a few megabytes each


def serve(
    *,
    checkpoint: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    dtype: str = "float32",
    limits: Limits | None = None,
) -> None:
    """Serves the page until Ctrl-C or SIGTERM; arguments and errors are those of `served`."""
    page = served(checkpoint=checkpoint, host=host, port=port, dtype=dtype, limits=limits)
    with page as address, contextlib.suppress(KeyboardInterrupt):
        if host not in _LOOPBACK:
            logging.warning("--host %s: everybody who reaches this machine can use the page", host)
        logging.info("open %s in a browser; Ctrl-C ends it", address)
        threading.Event().wait()
    logging.info("stopped; what visitors left is deleted")


@contextlib.contextmanager
def served(
    *,
    checkpoint: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    dtype: str = "float32",
    limits: Limits | None = None,
) -> Iterator[str]:
    """The page's address while it is served; afterwards the server's files are gone.

    Args:
      checkpoint: a model to offer first, as `earvae_jax.load` takes it.
      host: address to listen on; the default is reached from this machine alone.
      port: port to listen on; by default the first free one from 7860 on.
      dtype: number format that the page begins with.
      limits: what the page takes; see `Limits`.

    Raises:
      UserError: Gradio is not installed, the checkpoint cannot be read, the port is taken or the host is not
        one of this machine's.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if checkpoint is not None and by_name(checkpoint) is None:
        read_info(checkpoint)  # what is wrong with it is said now, not to the first visitor
    _check(host, _PORTS if port is None else (port,))
    limits = limits or Limits()
    with contextlib.ExitStack() as ending:
        kept = tempfile.TemporaryDirectory(prefix="earvae-demo-", ignore_cleanup_errors=True)
        folder = Path(ending.enter_context(kept)).resolve()
        ending.enter_context(
            _environment(
                GRADIO_ANALYTICS_ENABLED="False",
                HF_HUB_DISABLE_TELEMETRY="True",  # as Gradio would set it, for good
                GRADIO_TEMP_DIR=str(folder),
            )
        )
        gradio = require("gradio", extra="demo")
        page = importlib.import_module("earvae_jax.infer.web_app.page")
        visitors = Visitors(folder)
        ending.callback(visitors.close)
        blocks = page.build(Models(checkpoint), visitors, Turns(limits.waiting), limits, dtype)
        ending.callback(blocks.close, verbose=False)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,  # which browsers would keep
                footer_links=[],
                max_file_size=limits.bytes,
                state_session_capacity=_SESSIONS,
                theme=gradio.themes.Default(
                    primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("monospace",)
                ),
                head=f"<style>{Path(__file__).with_name('page.css').read_text(encoding='utf-8')}</style>",
            )
        except OSError as error:  # another program was faster
            raise UserError(f"{host}: {reason(error)}") from None
        yield address


def _check(host: str, ports: Sequence[int]) -> None:
    """Raises a `UserError` where nothing can listen on any of the ports: Gradio would not say why."""
    for port in ports:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
            family, kind, _, _, address = found[0]
            with socket.socket(family, kind) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
            return
        except OSError as error:
            is_of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
            if not is_of_port or port == ports[-1]:
                advice = "--port" if is_of_port else "--host"
                raise UserError(f"{host}, port {port}: {reason(error)}: choose another {advice}") from None


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets variables of the environment, which is the only place where Gradio looks for these."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
