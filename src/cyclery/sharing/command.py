"""The commands ``publish`` and ``fetch``."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of both."""
    parser.add_argument("--remote", metavar="NAME", help="a remote of DVC other than the default")


def publish(options: argparse.Namespace) -> None:
    """Freeze the configured tier and push it."""
    from cyclery.config.load import overrides
    from cyclery.sharing.publish import publish as run

    run(options.root, overrides(options.set), options.remote)


def fetch(options: argparse.Namespace) -> None:
    """Pull the configured tier and put it in its place."""
    from cyclery.config.load import overrides
    from cyclery.sharing.fetch import fetch as run

    run(options.root, overrides(options.set), options.remote)
