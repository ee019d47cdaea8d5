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
_LOG_IN = "log in with hf auth login, or set HF_TOKEN"
_REFUSALS = (401, 403)


class HubAddress(NamedTuple):
    """An address on the Hub; without a path, a whole repository."""

    text: str
    repo: str
    revision: str | None
    path: str

    def file(self, path: str) -> "HubAddress":
        """The address of another file of the repository."""
        return self._replace(path=path)

    def __str__(self) -> str:
        """The whole address of the file, where `text` may be shorter."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{_SCHEME}{self.repo}{revision}/{self.path}"


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
    logging.info("fetching %s", remote)
    huggingface_hub.utils.logging.set_verbosity_error()  # hides retries: the outcome is reported here
    with _explaining(remote, cached_only=False):
        return Path(huggingface_hub.hf_hub_download(remote.repo, remote.path, **known))


def is_cached(remote: HubAddress) -> bool:
    """Whether the file at an address is in the Hub's cache; asks nobody."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(remote.repo, remote.path, revision=remote.revision)
    return isinstance(found, str)


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
            f"{text}: {repo} is gated: accept its licence at https://huggingface.co/{repo}, then {_LOG_IN}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{text}: there is no public repository {repo}; for a private one, {_LOG_IN}"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{text}: {repo} has no revision {remote.revision}") from None
    except errors.LocalEntryNotFoundError as error:
        if cached_only:
            raise
        raise UserError(f"{text}: {_why_not(error, remote)}") from None
    except errors.EntryNotFoundError:
        raise UserError(f"{text}: {repo} has no file {remote.path}") from None
    # The errors of the HTTP library that this version of the Hub's client uses derive from these bases.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc] # they are exceptions
        raise UserError(f"{text}: {_why_not(error, remote)}") from None


def _why_not(error: Exception, remote: HubAddress) -> str:
    """Why a file that the cache lacks cannot be had."""
    from huggingface_hub import errors

    cause, status = error.__cause__ or error, http_status(error)
    if status in _REFUSALS:
        return (
            f"the Hugging Face Hub refuses {remote.repo} (HTTP {status}): if it is gated, accept its licence "
            f"at https://huggingface.co/{remote.repo}; then {_LOG_IN}, with a token that is valid"
        )
    if status is not None:
        return f"cannot be fetched (the Hugging Face Hub answers with HTTP {status}): try again later"
    on_the_way = isinstance(error, (ConnectionError, errors.LocalEntryNotFoundError))
    if isinstance(error, OSError) and not on_the_way:
        return f"cannot be fetched ({reason(error)})"
    said = "HF_HUB_OFFLINE is set" if isinstance(cause, errors.OfflineModeIsEnabled) else reason(cause)
    file = PurePosixPath(remote.path).name or "the file"
    return (
        f"the Hugging Face Hub cannot be reached ({said}), and {file} is not in its cache: "
        "download it elsewhere and pass its path"
    )


def http_status(error: Exception) -> int | None:
    """With what the Hub answered, if it did."""
    answers = (getattr(each, "response", None) for each in (error, error.__cause__))
    return next((answer.status_code for answer in answers if answer is not None), None)


def folder_of(path: str) -> str:
    """The folder of a file in a repository, "" at the top."""
    parent = PurePosixPath(path).parent.as_posix()
    return "" if parent == "." else parent
