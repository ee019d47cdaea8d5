"""Uploads a checkpoint and its page to the Hugging Face Hub, in one commit."""

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from absl import logging

from earvae_jax import checkpoints
from earvae_jax.borders import reason
from earvae_jax.convert.fetch import HubAddress, http_status, hub_address
from earvae_jax.errors import UserError
from earvae_jax.model.vae import EarVAE

CARD, WEIGHTS = "README.md", "model.safetensors"
_MAY_NOT = (401, 403)


def repository(address: str) -> HubAddress:
    """The address of a repository to write to.

    Raises:
      UserError: it is no `hf://OWNER/REPO[@BRANCH]`.
    """
    remote = hub_address(address)
    if remote is None or remote.path:
        raise UserError(f"{address}: a model goes to hf://OWNER/REPO, or hf://OWNER/REPO@BRANCH")
    return remote


def upload(
    remote: HubAddress,
    model: EarVAE,
    provenance: Mapping[str, Any],
    card: str,
    *,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Creates the repository if there is none, and commits both files; returns the commit's address.

    Raises:
      UserError: the Hub cannot be reached or refuses, or the repository holds such files and `overwrite` is
        false.
    """
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    huggingface_hub.utils.disable_progress_bars()
    api = huggingface_hub.HfApi()
    with tempfile.TemporaryDirectory() as folder, _explaining(remote):
        weights, page = Path(folder, WEIGHTS), Path(folder, CARD)
        checkpoints.save(weights, model, provenance=provenance)
        page.write_text(card, encoding="utf-8")
        api.create_repo(remote.repo, private=private, exist_ok=True)
        if remote.revision:
            api.create_branch(remote.repo, branch=remote.revision, exist_ok=True)
        there = set(api.list_repo_files(remote.repo, revision=remote.revision)) & {CARD, WEIGHTS}
        if there and not overwrite:
            raise UserError(
                f"{remote.text}: holds {' and '.join(sorted(there))} already: --overwrite replaces them, and "
                "the Hub keeps those of before in its history"
            )
        logging.info("%s: uploading %.1f MB", remote.text, weights.stat().st_size / 1e6)
        commit = api.create_commit(
            remote.repo,
            [huggingface_hub.CommitOperationAdd(path.name, path) for path in (page, weights)],
            commit_message=f"{WEIGHTS} of earvae-jax",
            revision=remote.revision,
        )
    return str(commit.commit_url)


def without_folders(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance with only the names of a training config's files and folders, for others to read."""
    cleaned = copy.deepcopy(dict(provenance))
    data = cleaned.get("training_config", {}).get("data", {})
    for key in ("train", "validation", "songs"):
        if isinstance(data.get(key), list | tuple):
            data[key] = [PurePath(place).name for place in data[key]]
    return cleaned


@contextlib.contextmanager
def _explaining(remote: HubAddress) -> Iterator[None]:
    """Turns what the Hub's client raises into one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise UserError(f"{remote.text}: {remote.repo} is not the name of a repository") from None
    # The errors of the HTTP library that this version of the Hub's client uses derive from these bases.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc] # they are exceptions
        status = http_status(error)
        if status in _MAY_NOT:
            why = (
                f"the Hugging Face Hub does not let you write there (HTTP {status}): run hf auth login, or "
                f"set HF_TOKEN, with a token that may write as {remote.repo.partition('/')[0]}"
            )
        elif status is not None:
            why = f"the Hugging Face Hub answers with HTTP {status} ({reason(error)}); nothing was changed"
        else:
            why = f"the Hugging Face Hub cannot be reached ({reason(error)})"
        raise UserError(f"{remote.text}: {why}") from None
