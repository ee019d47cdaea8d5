"""Addresses like `hf://OWNER/REPO/FILE` and `https://…`, which are not paths."""

import os
import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # two letters at least: C:/ is a drive


def address(source: str | os.PathLike[str]) -> str | None:
    """`source` as an address, with the slash that a `Path` loses; None if it is a path."""
    text = os.fspath(source)
    found = _SCHEME.match(text)
    if found is None:
        return None
    return text if "://" in text else f"{found[1]}://{text[found.end() :]}"
