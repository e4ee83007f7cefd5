"""Commands for who adds a method, a network, a paper or a dataset: check, new."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclery.authoring.skeletons import KINDS
from cyclery.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add these commands."""
    command = commands.add(
        "check", check, "check the whole configuration and the files of all components"
    )
    command.add_argument(
        "--method", nargs="?", const="", metavar="NAME",
        help="also run the networks of this method's arms and real steps of it on made-up images "
        "(without NAME: of every method that the tier's arms use), and report each mistake with "
        "its line",
    )  # fmt: skip
    command = commands.add(
        "new", new, "write the file of a new method, network, paper or dataset, to begin with"
    )
    command.add_argument("kind", choices=KINDS)
    command.add_argument("name")
    command.add_argument(
        "--folder", type=Path,
        help="of a dataset: images, in one folder for each class; they are counted and looked at",
    )  # fmt: skip
    command.add_argument(
        "--dataset", metavar="NAME", help="of a paper: the dataset that its arms are compared on"
    )


def new(options: argparse.Namespace) -> None:
    """Write a skeleton and say what to do next."""
    from cyclery.authoring.skeletons import write

    given = {"folder": options.folder, "dataset": options.dataset}
    print(write(options.root, options.kind, options.name, **given))


def check(options: argparse.Namespace) -> None:
    """Check all components' files, every paper at every tier, and with ``--method`` real steps."""
    from cyclery.authoring.component_files import check_files
    from cyclery.config.load import load, overrides, tier_names
    from cyclery.plan import table_checks
    from cyclery.plan.project_checks import check

    # Those that no arm asks for, too: a file that its author is at work on.
    check_files()
    changed = overrides(options.set)
    first = check(load(options.root, changed))
    if options.method is not None:
        from cyclery.authoring.try_methods import try_methods

        print(try_methods(first, options.method))
    others = [] if "tier" in changed else [t for t in tier_names(options.root) if t != first.tier]
    for plan in [first, *(check(load(options.root, {**changed, "tier": t})) for t in others)]:
        papers = plan.project.papers
        arms = sum(len(plan.part_arms(paper)) for paper in papers)
        print(f"tier {plan.tier}: {len(papers)} papers, {arms} arms, all keys are good")
    for paper, shown, known in table_checks.shown(first.project):
        # A mistyped name of a printed row is no error, for papers leave cells empty.
        if shown < known:
            print(f"{paper}: {shown} of {known} printed figures stand in a table")
