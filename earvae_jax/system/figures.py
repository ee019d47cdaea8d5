"""Hands out figures: as a table for people, or as JSON."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from earvae_jax.borders import shown
from earvae_jax.errors import UserError
from earvae_jax.system.atomic import replacing


def hand_out(table: str, values: Mapping[str, Any], *, as_json: bool | str | None) -> None:
    """Writes the table to standard output.

    Args:
      as_json: true for one JSON object in its place, or the path of a file that gets the object besides.

    Raises:
      UserError: the file cannot be written.
    """
    text = json.dumps(values, indent=2) + "\n"
    sys.stdout.write(text if as_json is True else table)
    if not isinstance(as_json, str):
        return
    try:
        with replacing(as_json) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown(as_json)}: cannot be written: {error.strerror or error}") from None
