"""Commands about a project as it stands: plan, status, decide, verify, doctor, docs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cyclery.budget import command as budget
from cyclery.cli.commands import Commands, load_plan, load_project
from cyclery.monitor import command as monitor

if TYPE_CHECKING:
    from cyclery.plan.graph import Plan


def register(commands: Commands) -> None:
    """Add these commands."""
    command = commands.add(
        "plan", plan, "show cells, runs, estimated time and disk, and what is done"
    )
    command.add_argument("part", nargs="*", help="paper, paper.experiment or paper.claim")
    monitor.arguments(
        commands.add("status", status, "show what runs, waits, is done, diverged or failed")
    )
    text = "spend hours on the claims that more seeds may decide, and show verdicts as they fall"
    budget.arguments(commands.add("decide", decide, text))
    commands.add(
        "verify", verify, "say whether every file of a tier is whole, and where its report is"
    )
    commands.add(
        "doctor", doctor, "say what this machine has, lacks or has wrongly, and the remedy"
    )
    command = commands.add("docs", docs, "write the JSON Schemas and the reference of every key")
    command.add_argument("--check", action="store_true", help="only say whether they are current")


def plan(options: argparse.Namespace) -> None:
    """Print what would run."""
    from cyclery.plan.cost import show

    show(load_plan(options), options.part)


def status(options: argparse.Namespace) -> None:
    """Print what runs; without the check of every key, which jobs that run have passed."""
    from cyclery.plan.run_list import run_list

    def load() -> Plan:
        from cyclery.plan.graph import Plan

        return Plan(load_project(options))

    monitor.status(options, run_list(options.root, options.set, options.part, load))


def decide(options: argparse.Namespace) -> None:
    """Give seeds to the claims that they may decide."""
    from cyclery.config.load import overrides

    tier = [f"tier={options.tier}"] if options.tier else []
    budget.decide(options, overrides([*options.set, *tier]))


def verify(options: argparse.Namespace) -> None:
    """Compare every file of the tier with what was recorded of it."""
    from cyclery.monitor.verify import verify

    verify(load_plan(options))


def doctor(options: argparse.Namespace) -> int:
    """Print what the machine lacks; return 1 where that stops a run."""
    from cyclery.monitor.environment import show

    return show(load_plan(options))


def docs(options: argparse.Namespace) -> None:
    """Write or compare the generated pages."""
    from cyclery.authoring.docs import write

    write(options.root, options.check)
