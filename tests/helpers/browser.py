"""A headless Chromium driven through chromedriver's HTTP interface (W3C WebDriver), with urllib alone."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of element references, fixed by the standard


def missing() -> str | None:
    """Why no browser can be driven here, or None."""
    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium is installed"
    return None if shutil.which("chromedriver") else "chromedriver is not installed"


class Browser:
    """One session: pages, clicks, scripts and what went over the network."""

    def __init__(self, server: str, profile: Path):
        self._server, self._session = server, ""
        arguments = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        )
        chrome = {"binary": next(filter(None, map(shutil.which, BROWSERS))), "args": arguments}
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        session = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{session['sessionId']}"
        self._post("/url", {"url": "about:blank"})
        self.requests()  # those of the browser's own first page

    def open(self, page: Path | str) -> None:
        """Loads a local file or an address."""
        self._post("/url", {"url": page if isinstance(page, str) else page.as_uri()})

    def visit(self, address: str) -> None:
        """Loads a page from a server."""
        self._post("/url", {"url": address})

    def choose(self, selector: str, path: Path) -> None:
        """Picks a file for an `<input type="file">`."""
        element = self._post("/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._post(f"/element/{element}/value", {"text": str(path)})

    def run(self, script: str):
        """The value of the body of a JavaScript function."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """A real click, which counts as the gesture that sound needs."""
        self._post(f"/element/{self._element(selector)}/click", {})

    def upload(self, selector: str, path: Path) -> None:
        """Chooses a file in a file input, as its dialog does."""
        self._post(f"/element/{self._element(selector)}/value", {"text": str(path)})

    @contextlib.contextmanager
    def inside(self, selector: str) -> Iterator[None]:
        """Scripts and clicks happen in a frame of the page."""
        self._post("/frame", {"id": {ELEMENT: self._element(selector)}})
        try:
            yield
        finally:
            self._post("/frame", {"id": None})

    def tabs(self) -> list[str]:
        """The open tabs."""
        return self._request("GET", "/window/handles", None)

    def new_tab(self) -> str:
        """Opens a tab and goes there."""
        tab = self._post("/window/new", {"type": "tab"})["handle"]
        self.go(tab)
        return tab

    def go(self, tab: str) -> None:
        """Goes to a tab."""
        self._post("/window", {"handle": tab})

    def close_tab(self) -> None:
        """Closes the tab and goes to the first of the others."""
        self.go(self._request("DELETE", "/window", None)[0])

    def keys(self, text: str) -> None:
        """Types into the page."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command: str, **parameters):
        """A command of the Chrome DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def window(self, width: int, *, dark: bool = False) -> None:
        """A viewport of a width, as a phone or a desktop has it."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, inline data left out."""
        entries = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """Errors and warnings of the page's console."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def close(self) -> None:
        """Ends the session."""
        self._request("DELETE", "", None)

    def _element(self, selector: str) -> str:
        return self._post("/element", {"using": "css selector", "value": selector})[ELEMENT]

    def _log(self, kind: str) -> list[dict]:
        return self._post("/se/log", {"type": kind})

    def _post(self, command: str, content: dict):
        return self._request("POST", command, content)

    def _request(self, method: str, command: str, content: dict | None):
        data = None if content is None else json.dumps(content).encode()
        address = self._server + self._session + command
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{command}: {json.load(error)['value']['message']}") from None


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; both processes end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        session = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
