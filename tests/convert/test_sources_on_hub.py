"""Repositories of the Hub as sources of weights, against a small stand-in for it."""

import http.server
import json
import os
import subprocess
import sys
import threading

import family
import pytest

ACE = "diffusers_acestep_tiny"
# The Hub's client reads its address and its cache once, when imported: each check is a process of its own.
PROGRAM = """
import json, sys
from earvae_jax.convert import from_torch
from earvae_jax.errors import UserError
try:
    weights = from_torch.read(sys.argv[1])
    print(json.dumps([weights.config.sample_rate, from_torch.provenance(weights)]))
except UserError as error:
    print(json.dumps(str(error)))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of repositories; one called gated is refused without a token."""

    repositories: dict[str, dict[str, bytes]]
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
        if "gated" in repo:
            return self.reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"")
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


@pytest.fixture
def hub(tmp_path):
    """Reads a source in a fresh process: rate and provenance, or the error, and the requests made."""
    folder = family.folder(ACE)
    weights, config = (
        (folder / name).read_bytes() for name in ("diffusion_pytorch_model.safetensors", "config.json")
    )
    at_other_rate = json.dumps({**json.loads(config), "sampling_rate": 32_000}).encode()
    Hub.repositories = {
        "owner/pipeline": {
            "vae/diffusion_pytorch_model.safetensors": weights,
            "vae/config.json": at_other_rate,
            "model.safetensors": b"a generator of gigabytes",
            "config.json": b'{"model_type": "t5"}',
        },
        "owner/comfy": {"split_files/vae/vae.safetensors": weights, "split_files/unet/unet.safetensors": b""},
        "owner/none": {"README.md": b""},
        "owner/gated": {"model.safetensors": weights},
    }
    Hub.requests = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def read(source, **environment):
        Hub.requests.clear()
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        }
        words = [sys.executable, "-c", PROGRAM, source]
        run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        return json.loads(run.stdout.splitlines()[-1]), list(Hub.requests)

    yield read
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["", "/vae", "/vae/diffusion_pytorch_model.safetensors"])
def test_weights_and_the_json_beside_them_are_fetched_once(hub, path):
    address = f"hf://owner/pipeline{path}"
    (rate, provenance), requests = hub(address)
    assert rate == 32_000 and provenance["source_config"] == "config.json"
    assert provenance["source"] == "hf://owner/pipeline/vae/diffusion_pytorch_model.safetensors"
    assert not any("resolve/main/model.safetensors" in request for request in requests)
    assert hub(address, HF_HUB_OFFLINE="1") == ([rate, provenance], [])


def test_a_lone_file_deep_in_a_repository(hub):
    (rate, provenance), _ = hub("hf://owner/comfy")
    assert rate == 48_000 and "source_config" not in provenance
    assert provenance["source"] == "hf://owner/comfy/split_files/vae/vae.safetensors"


def test_what_cannot_be_had_is_one_clear_line(hub):
    (message, _), (listed, _), (absent, _) = (
        hub("hf://owner/gated/model.safetensors"), hub("hf://owner/gated"), hub("hf://owner/absent"),
    )  # fmt: skip
    for line in (message, listed):
        assert "owner/gated is gated" in line and "https://huggingface.co/owner/gated" in line
        assert "hf auth login" in line and "HF_TOKEN" in line
    assert "there is no public repository owner/absent" in absent
    assert "a repository without a weights file" in hub("hf://owner/none")[0]
    assert "cannot be reached" in hub("hf://owner/pipeline@v2", HF_HUB_OFFLINE="1")[0]
