"""The commands ``publish`` and ``fetch``."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser, publishing: bool = False) -> None:
    """Add the options of both, and those of ``publish`` alone."""
    parser.add_argument("--remote", metavar="NAME", help="a remote of DVC other than the default")
    if publishing:
        parser.add_argument(
            "--all-weights",
            action="store_true",
            help="also the weights of parents that train again within a minute",
        )
        parser.add_argument(
            "--atlas", action="store_true", help="the page of `snakemake atlas`, and no tier"
        )


def publish(options: argparse.Namespace) -> None:
    """Freeze the configured tier, or the atlas, and push it."""
    from cyclery.config.load import overrides

    if options.atlas:
        from cyclery.sharing.publish_atlas import publish_atlas

        publish_atlas(options.root, overrides(options.set), options.remote)
        return
    from cyclery.sharing.publish import publish as run

    run(options.root, overrides(options.set), options.remote, options.all_weights)


def fetch(options: argparse.Namespace) -> None:
    """Pull the configured tier and put it in its place."""
    from cyclery.config.load import overrides
    from cyclery.sharing.fetch import fetch as run

    run(options.root, overrides(options.set), options.remote)
