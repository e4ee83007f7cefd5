"""What all commands share: options that each takes, and the plan that most begin with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclery.config.load import Project
    from cyclery.plan.graph import Plan


class Commands:
    """The commands of the parser; a group adds its own."""

    def __init__(self, commands: Any) -> None:
        self._commands = commands

    def add(
        self, name: str, function: Callable[[argparse.Namespace], int | None], text: str
    ) -> argparse.ArgumentParser:
        """Add a command that runs ``function`` on the parsed options; return its parser."""
        found: argparse.ArgumentParser = self._commands.add_parser(
            name, help=text, description=text
        )
        found.set_defaults(command=function)
        override(found, "set")
        found.add_argument("--log", type=Path, help="also write all detail to this file")
        found.add_argument("-v", "--verbose", action="store_true", help="say more")
        return found


def override(parser: argparse.ArgumentParser, dest: str) -> None:
    """Add the option ``--set``; it may stand before the command and after it."""
    parser.add_argument(
        "--set", dest=dest, action="append", default=[], metavar="KEY=VALUE",
        help="override a key of config/config.yaml, as in --set tier=desk",
    )  # fmt: skip


def load_project(options: argparse.Namespace) -> Project:
    """Return the configuration, each file of it validated."""
    from cyclery.config.load import load, overrides

    return load(options.root, overrides(options.set))


def load_plan(options: argparse.Namespace) -> Plan:
    """Return the plan of the configuration, checked as a whole."""
    from cyclery.plan.project_checks import check

    return check(load_project(options))
