"""Commands about what was made: compare, replicate, export, publish, fetch, bench."""

from __future__ import annotations

import argparse

from cyclery.bench import command as bench
from cyclery.cli.commands import Commands, load_plan
from cyclery.compare import command as compare
from cyclery.compare import replicate
from cyclery.exports import command as exports
from cyclery.sharing import command as sharing


def register(commands: Commands) -> None:
    """Add these commands; each one's arguments stand in its room, beside its function."""
    text = "compare two sets of results: verdicts that moved, arms that differ, what is identical"
    compare.arguments(commands.add("compare", compare.run, text))
    text = "run a tier on fresh seeds, and put old and new verdicts side by side"
    replicate.arguments(commands.add("replicate", replicate.run, text))
    text = "write runs, curves and verdicts for other tools: Parquet, TensorBoard"
    exports.arguments(commands.add("export", export, text))
    text = "freeze a finished tier for others, by DVC"
    sharing.arguments(commands.add("publish", sharing.publish, text), publishing=True)
    text = "pull a published tier and put it in its place"
    sharing.arguments(commands.add("fetch", sharing.fetch, text))
    text = "measure the engine against training loops written by hand"
    bench.arguments(commands.add("bench", bench.bench, text))


def export(options: argparse.Namespace) -> None:
    """Write tables and event files of the selected tier, or of another."""
    if options.tier:
        options.set = [*options.set, f"tier={options.tier}"]
    exports.export(load_plan(options), options)
