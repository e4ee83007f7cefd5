"""The command ``cyclery decide``: its options, and one call of it at a time."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from cyclery.budget.choice import FUTILE
from cyclery.common.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "part", nargs="*", metavar="PAPER|CLAIM", help="paper or paper.claim; all without"
    )
    parser.add_argument(
        "--hours", type=_hours, required=True, help="time that may be spent, by the clock"
    )
    parser.add_argument("--tier", help="a file of config/tiers; the same as --set tier=TIER")
    parser.add_argument(
        "--cores", default="all", type=_cores, help="cores that Snakemake may use (default all)"
    )
    parser.add_argument(
        "--all", action="store_true",
        help=f"give seeds also where the chance of a decision is below {100 * FUTILE:.0f} %%",
    )  # fmt: skip
    parser.add_argument(
        "--snakemake", action="append", default=[], metavar="OPTION",
        help="an option for Snakemake, as in --snakemake=--workflow-profile=profiles/slurm",
    )  # fmt: skip


def _hours(text: str) -> float:
    value = float(text)
    if not 0.001 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"must be 0.001 to 10000 hours (found {text})")
    return value


def _cores(text: str) -> str:
    if text != "all" and not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"must be all, or a number of cores (found {text})")
    return text


def decide(options: argparse.Namespace, overrides: Mapping[str, object]) -> None:
    """Spend the hours; print verdicts as they fall and, at the end, what each claim got and why.

    Raises:
        UserError: seeds are asked for, another call is at work here, or a job failed.
    """
    # Every other command adds these options too, and should not wait for statistics.
    from cyclery.budget.deciding import Deciding
    from cyclery.common.files import Busy
    from cyclery.config.load import load
    from cyclery.plan import allocation

    project = load(options.root, overrides)
    if project.config.seeds is not None:
        raise UserError(
            f"seeds: must be null, for `cyclery decide` says itself how many seeds arms have "
            f"(found {project.config.seeds}). The seeds that claims plan are `planned`."
        )
    path = allocation.place(project.results, project.config.tier)
    try:
        with allocation.hold(path):
            Deciding(project, options).run()
    except Busy:
        raise UserError(
            f"{path}: another `cyclery decide` is at work on tier {project.config.tier!r}; wait "
            "for it, or stop it with Ctrl-C."
        ) from None
