"""Weights files by address: a path, or `hf://OWNER/REPO[@REVISION]/PATH` on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from absl import logging

from earvae_jax.errors import UserError
from earvae_jax.system.addresses import address

_SCHEME = "hf://"


def local_path(source: str | Path) -> Path:
    """The local path of a file; a file at an `hf://` address is first fetched into the Hub's cache.

    A file in the cache is used without asking the Hub.

    Raises:
      UserError: the address is malformed, there is no such file, or the Hub cannot be reached.
    """
    text = address(source)
    if text is None:
        return Path(source)
    if not text.startswith(_SCHEME):
        raise UserError(f"{text}: only hf:// addresses are fetched: download it and pass its path")
    owner, _, rest = text.removeprefix(_SCHEME).partition("/")
    repo, _, filename = rest.partition("/")
    repo, _, revision = repo.partition("@")
    if not (owner and repo and filename):
        raise UserError(f"{text}: not of the form hf://OWNER/REPO/PATH")
    return _from_hub(text, f"{owner}/{repo}", filename, revision or None)


def _from_hub(address: str, repo: str, filename: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    def fetch(**options: Any) -> Path:
        return Path(huggingface_hub.hf_hub_download(repo, filename, revision=revision, **options))

    try:
        try:
            return fetch(local_files_only=True)
        except errors.LocalEntryNotFoundError:
            logging.info("fetching %s", address)
        huggingface_hub.utils.logging.set_verbosity_error()  # hides retries: the outcome is reported below
        return fetch()
    except errors.HFValidationError:
        raise UserError(f"{address}: {repo} is not the name of a repository") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{address}: there is no public repository {repo}") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{address}: {repo} has no revision {revision}") from None
    except errors.LocalEntryNotFoundError:
        raise UserError(
            f"{address}: the Hugging Face Hub cannot be reached, and the file is not in its cache; "
            "download it elsewhere and pass its path"
        ) from None
    except errors.EntryNotFoundError:
        raise UserError(f"{address}: {repo} has no file {filename}") from None
    # The errors of the HTTP library that this version of the Hub's client uses derive from these bases.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc] # they are exceptions
        raise UserError(f"{address}: cannot be fetched ({str(error).splitlines()[0]})") from None
