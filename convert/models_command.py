"""`earvae models`: the models that have a name, what they need, and which are here already."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earvae_jax.known_models import KnownModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the form of the list."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the list; asks neither the Hub nor anybody else."""
    import json
    import sys

    from earvae_jax.known_models import KNOWN_MODELS

    described = [_described(known) for known in KNOWN_MODELS]
    sys.stdout.write(json.dumps(described, indent=2) + "\n" if arguments.json else _text(described))
    return 0


def _described(known: "KnownModel") -> dict[str, Any]:
    from earvae_jax.convert.cached import place_of
    from earvae_jax.convert.fetch import is_cached
    from earvae_jax.convert.sources import known_address

    config, checkpoint = known.config, place_of(known)
    converted = checkpoint.is_file()
    return {
        "name": known.name,
        "sample_rate_hz": config.sample_rate,
        "latent_rate_hz": config.sample_rate and config.sample_rate / config.downsampling_ratio,
        "licence": known.licence,
        "weights": known.address,
        "page": known.page,
        "is_gated": known.is_gated,
        "needs_torch": known.needs_torch,
        "is_fetched": is_cached(known_address(known)),
        "checkpoint": str(checkpoint) if converted else None,
    }


def _text(described: Sequence[dict[str, Any]]) -> str:
    rows = [("name", "rate", "latents/s", "licence", "needs", "cache", "weights")]
    rows += [
        (
            each["name"],
            f"{each['sample_rate_hz']}",
            f"{each['latent_rate_hz']:.2f}",
            each["licence"],
            _needs(each),
            "converted" if each["checkpoint"] else "fetched" if each["is_fetched"] else "–",
            each["weights"],
        )
        for each in described
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    gated = [each for each in described if each["is_gated"]]
    return "\n".join(
        [
            *lines,
            "",
            "--checkpoint NAME fetches a model, converts it once, and runs it.",
            "login: hf auth login, or set HF_TOKEN, with an account that accepted the licence:",
            *(f"  {each['page']}" for each in gated),
            "torch: pip install 'earvae-jax[torch]', to read the file.",
            "",
        ]
    )


def _needs(each: dict[str, Any]) -> str:
    return (
        ", ".join(
            need
            for need, is_needed in (("login", each["is_gated"]), ("torch", each["needs_torch"]))
            if is_needed
        )
        or "–"
    )
