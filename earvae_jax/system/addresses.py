"""Addresses like `hf://OWNER/REPO/FILE` and `https://…`, which are no paths."""

import os
import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # two letters at least: C:/ is a drive


def address(source: str | os.PathLike[str]) -> str | None:
    """The address that `source` is, both slashes restored where a `Path` lost one; None for a path."""
    text = os.fspath(source)
    found = _SCHEME.match(text)
    if found is None:
        return None
    return text if "://" in text else f"{found[1]}://{text[found.end() :]}"
