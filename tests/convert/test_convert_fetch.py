"""hf:// addresses, against a small stand-in for the Hugging Face Hub."""

import json
import subprocess
import sys

import hub as stand_in
import pytest

from earvae_jax.convert.fetch import hub_address
from earvae_jax.errors import UserError

CONTENT = b"weights" * 1000
PROGRAM = """
import json, sys
from earvae_jax.convert.fetch import fetched, hub_address
from earvae_jax.errors import UserError
found = []
for address in sys.argv[1:]:
    try:
        found.append(fetched(hub_address(address)).read_text())
    except UserError as error:
        found.append(str(error))
print(json.dumps(found))
"""


@pytest.fixture
def hub(tmp_path):
    """Resolves addresses in a fresh process; returns texts or error lines, and the requests made."""
    files = {"folder/weights.pyt": CONTENT, "weights.pyt": CONTENT}
    with stand_in.serving({"owner/repo": files}) as (surroundings, requests):

        def resolve(*addresses, **environment):
            requests.clear()
            environment = {**surroundings, "HF_HOME": str(tmp_path / "hub"), **environment}
            command = [sys.executable, "-c", PROGRAM, *addresses]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            return json.loads(run.stdout.splitlines()[-1]), [path for path in requests if "resolve" in path]

        yield resolve


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(hub):
    address = "hf://owner/repo/folder/weights.pyt"
    found, requests = hub(address)
    assert found == [CONTENT.decode()]
    assert requests[0] == "/owner/repo/resolve/main/folder/weights.pyt"
    assert hub(address, HF_HUB_OFFLINE="1") == ([CONTENT.decode()], [])
    assert hub(address, HF_ENDPOINT="http://127.0.0.1:9") == ([CONTENT.decode()], [])
    found, requests = hub("hf://owner/repo@v2/folder/weights.pyt")
    assert found == [CONTENT.decode()] and requests[0] == "/owner/repo/resolve/v2/folder/weights.pyt"


def test_what_cannot_be_had_is_one_clear_line(hub):
    missing, private, name = "hf://owner/repo/missing.pyt", "hf://owner/private/a.pyt", "hf://owner/b c/a.pyt"
    found, _ = hub(missing, private, name)
    assert found == [
        f"{missing}: owner/repo has no file missing.pyt",
        f"{private}: there is no public repository owner/private; for a private one, log in with "
        "hf auth login, or set HF_TOKEN",
        f"{name}: owner/b c is not the name of a repository",
    ]
    (offline,), requests = hub("hf://owner/repo/weights.pyt", HF_HUB_OFFLINE="1")
    assert "cannot be reached (HF_HUB_OFFLINE is set), and weights.pyt is not in its cache" in offline
    assert not requests
    assert all("\n" not in line for line in [*found, offline])


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf:///repo"])
def test_incomplete_addresses_are_refused(address):
    with pytest.raises(UserError, match="not of the form hf://OWNER/REPO/PATH"):
        hub_address(address)


def test_paths_are_left_alone(tmp_path):
    assert hub_address(tmp_path / "x.pyt") is None
