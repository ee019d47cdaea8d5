"""A small stand-in for the Hugging Face Hub."""

import base64
import contextlib
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

Answer = tuple[int, dict[str, str]]  # status and headers
TOKEN = "hf_of_somebody_who_accepted_the_licence"
GATED: Answer = (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of repositories; writing, and those that are gated, need the token."""

    repositories: dict[str, dict[str, bytes]]
    gated: frozenset[str]
    refusals: Mapping[str, Answer]  # by the token that is shown, for repositories that are gated
    requests: list[str]

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        type(self).requests.append(self.path)
        path = self.path.partition("?")[0]
        repo = next((name for name in self.repositories if f"/{name}/" in path), None)
        files = self.repositories.get(repo, {})
        if repo is None:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"}, b"")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo in self.gated and token != TOKEN:
            return self.reply(*self.refusals.get(token, GATED), b"")
        if "/tree/" in path:
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ]
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(listed).encode())
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in files:
            return self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "a" * 40}, b"")
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{abs(hash((repo, name)))}"'}
        return self.reply(200, headers, files[name], with_body)

    def do_POST(self):
        """What uploads ask for: a repository, whether files are large (none is), a commit."""
        type(self).requests.append(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization", "").removeprefix("Bearer ") != TOKEN:
            return self.reply(401, {"X-Error-Message": "Invalid username or password."}, b"")
        *_, repo, what = re.fullmatch(r"/api(/models/([^/]+/[^/]+))?/(.*)", self.path).groups()
        if what == "validate-yaml":
            return self.reply_json({"errors": [], "warnings": []})
        if what == "repos/create":
            asked = json.loads(content)
            repo = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            status = 409 if repo in self.repositories else 200
            self.repositories.setdefault(repo, {})
            return self.reply_json({"url": f"https://huggingface.co/{repo}"}, status)
        if what.startswith("preupload/"):
            modes = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(content)["files"]]
            return self.reply_json({"files": [mode | {"shouldIgnore": False} for mode in modes]})
        for line in map(json.loads, content.splitlines()):
            if line["key"] == "file":
                self.repositories[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.reply_json(
            {"commitUrl": f"https://huggingface.co/{repo}/commit/{'a' * 40}", "commitOid": "a" * 40}
        )

    def reply_json(self, values, status=200):
        self.reply(status, {"Content-Type": "application/json"}, json.dumps(values).encode())

    def reply(self, code, headers, body, with_body=True):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(
    repositories: dict[str, dict[str, bytes]],
    gated: tuple[str, ...] = (),
    refusals: Mapping[str, Answer] = MappingProxyType({}),
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Serves repositories by name; yields the environment that leads there, and the paths asked for so far.

    The Hub's client reads its environment once, when imported: what asks is a process of its own.
    """
    Hub.repositories, Hub.gated, Hub.refusals, Hub.requests = repositories, frozenset(gated), refusals, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1"}
    without = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    yield {name: value for name, value in os.environ.items() if name not in without} | address, Hub.requests
    server.shutdown()
    server.server_close()
