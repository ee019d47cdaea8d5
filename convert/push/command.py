"""`earvae push`: a checkpoint, with a page about it, to the Hugging Face Hub."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what goes where, and what the page says."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the model, as --checkpoint takes it")
    parser.add_argument("repository", metavar="hf://OWNER/REPO", help="where it goes; made if there is none")
    parser.add_argument(
        "--licence", required=True, metavar="ID", help="of the weights, as the Hub names it: cc-by-4.0, other"
    )
    parser.add_argument(
        "--metrics", metavar="JSON", help="the evaluation_results.json that earvae evaluate wrote"
    )
    parser.add_argument(
        "--data", nargs="+", default=(), metavar="TEXT", help="what it was trained on, a line each"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--overwrite", action="store_true", help="replace the model of a repository")
    parser.add_argument("--dry-run", action="store_true", help="print the page, and upload nothing")


def run(arguments: argparse.Namespace) -> int:
    """Uploads and prints the commit's address."""
    import sys
    from pathlib import Path

    from earvae_jax.checkpoints import load_with_info
    from earvae_jax.convert.push.card import model_card, read_metrics
    from earvae_jax.convert.push.upload import repository, upload, without_folders

    remote = repository(arguments.repository)
    metrics = None if arguments.metrics is None else read_metrics(Path(arguments.metrics))
    model, info = load_with_info(arguments.checkpoint)
    card = model_card(remote.repo, info, licence=arguments.licence, data=arguments.data, metrics=metrics)
    if arguments.dry_run:
        sys.stdout.write(card)
        return 0
    provenance = without_folders(info.provenance)
    options = {"private": arguments.private, "overwrite": arguments.overwrite}
    sys.stdout.write(upload(remote, model, provenance, card, **options) + "\n")
    return 0
