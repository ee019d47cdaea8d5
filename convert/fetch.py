"""Files on the Hugging Face Hub: `hf://OWNER/REPO[@REVISION]/PATH`, fetched into its own cache."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from absl import logging

from earvae_jax.borders import reason
from earvae_jax.errors import UserError
from earvae_jax.system.addresses import address

_SCHEME = "hf://"


class HubAddress(NamedTuple):
    """An address on the Hub; without a path, a whole repository."""

    text: str
    repo: str
    revision: str | None
    path: str

    def file(self, path: str) -> "HubAddress":
        """The address of another file of the repository."""
        return self._replace(path=path)


def hub_address(source: str | Path) -> HubAddress | None:
    """The parts of an `hf://` address; None for a local path.

    Raises:
      UserError: it is another kind of address, or malformed.
    """
    text = address(source)
    if text is None:
        return None
    if not text.startswith(_SCHEME):
        raise UserError(f"{text}: only hf:// addresses are fetched: download it and pass its path")
    owner, _, rest = text.removeprefix(_SCHEME).partition("/")
    repo, _, path = rest.partition("/")
    repo, _, revision = repo.partition("@")
    if not (owner and repo):
        raise UserError(f"{text}: not of the form hf://OWNER/REPO/PATH, nor hf://OWNER/REPO")
    return HubAddress(text, f"{owner}/{repo}", revision or None, path.strip("/"))


def fetched(remote: HubAddress) -> Path:
    """The file at an address in the Hub's cache; one that is there is used without asking the Hub.

    Raises:
      UserError: there is no such file, or the Hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    known: dict[str, Any] = {"revision": remote.revision}
    with contextlib.suppress(errors.LocalEntryNotFoundError), _explaining(remote):
        return Path(huggingface_hub.hf_hub_download(remote.repo, remote.path, local_files_only=True, **known))
    logging.info("fetching %s", remote.text)
    huggingface_hub.utils.logging.set_verbosity_error()  # hides retries: the outcome is reported here
    with _explaining(remote, cached_only=False):
        return Path(huggingface_hub.hf_hub_download(remote.repo, remote.path, **known))


def cached_files(remote: HubAddress) -> list[str]:
    """The files of a repository that are in the Hub's cache."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        with _explaining(remote):
            folder = Path(
                huggingface_hub.snapshot_download(
                    remote.repo, revision=remote.revision, local_files_only=True
                )
            )
    except errors.LocalEntryNotFoundError:
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def listed_files(remote: HubAddress) -> list[str]:
    """All files of a repository, which the Hub is asked for.

    Raises:
      UserError: there is no such repository, or the Hub cannot be reached.
    """
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    with _explaining(remote, cached_only=False):
        return sorted(huggingface_hub.HfApi().list_repo_files(remote.repo, revision=remote.revision))


@contextlib.contextmanager
def _explaining(remote: HubAddress, *, cached_only: bool = True) -> Iterator[None]:
    """Turns the errors of the Hub's client into one line; a file that the cache lacks passes if asked."""
    from huggingface_hub import errors

    text, repo = remote.text, remote.repo
    try:
        yield
    except errors.HFValidationError:
        raise UserError(f"{text}: {repo} is not the name of a repository") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{text}: {repo} is gated: accept its licence at https://huggingface.co/{repo}, then log in with "
            "hf auth login, or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{text}: there is no public repository {repo}") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{text}: {repo} has no revision {remote.revision}") from None
    except errors.LocalEntryNotFoundError:
        if cached_only:
            raise
        raise UserError(
            f"{text}: the Hugging Face Hub cannot be reached, and the file is not in its cache; "
            "download it elsewhere and pass its path"
        ) from None
    except errors.EntryNotFoundError:
        raise UserError(f"{text}: {repo} has no file {remote.path}") from None
    # The errors of the HTTP library that this version of the Hub's client uses derive from these bases.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc] # they are exceptions
        on_the_way = isinstance(error, ConnectionError) or not isinstance(error, OSError)
        said = reason(error)
        if on_the_way:
            said = f"the Hugging Face Hub cannot be reached: {said}; download it elsewhere and pass its path"
        raise UserError(f"{text}: cannot be fetched ({said})") from None


def folder_of(path: str) -> str:
    """The folder of a file in a repository, "" at the top."""
    parent = PurePosixPath(path).parent.as_posix()
    return "" if parent == "." else parent
