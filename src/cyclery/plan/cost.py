"""Estimated cost of a plan: runs, images and time, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.formatting import duration
from cyclery.config.load import at_tier
from cyclery.plan.graph import Plan
from cyclery.plan.model import ArmPlan, needed_seeds, with_ancestors
from cyclery.records.record import Record
from cyclery.records.run_store import Store

# Bytes that one run leaves behind, measured at the smoke tier: its record in the store and again
# in its shard.
RECORD_BYTES = 12_000
# Used for a network whose speed neither the tier nor any record gives.
UNKNOWN_IMAGES_PER_SECOND = 1000.0
# The cheapest first: a claim is reported to need the first that tests it.
TIERS = ("smoke", "laptop", "desk", "paper")


def seconds(plan: Plan, arm: ArmPlan, measured: dict[str, float] | None = None) -> float:
    """Return the estimated training time of one run: measured here, or as the tier declares."""
    rate = (measured or {}).get(arm.settings["model"]["name"]) or declared_speed(plan, arm.settings)
    return arm.cost["views"] / rate


def declared_speed(plan: Plan, settings: Mapping[str, Any]) -> float:
    """Return the images per second that the tier declares for the network of these settings."""
    declared = plan.project.tier.images_per_second
    return declared.get(settings["model"]["name"], UNKNOWN_IMAGES_PER_SECOND)


def elsewhere(plan: Plan) -> list[Plan]:
    """Return the plans of the other tiers, the cheapest first."""
    return [other for tier in TIERS if (other := _other(plan, tier)) is not None]


def arm_seconds(plan: Plan, arm: ArmPlan) -> dict[str, float]:
    """Return the estimated training time of all planned seeds of an arm, ancestors and trials.

    It is by the digest of each, since arms share ancestors.
    """
    seeds = range(plan.project.tier.planned or plan.project.seeds)
    arms = {each.digest: each for each in with_ancestors([arm])}
    needed = needed_seeds([(arm, seeds)])
    return {key: len(found) * seconds(plan, arms[key]) for key, found in needed.items()}


def claim_needs(plan: Plan, paper: str, plans: Sequence[Plan]) -> dict[str, str]:
    """Return, for claims that this tier does not test, the tier that does and its training time.

    ``plans`` are those of other tiers, of which the first that tests a claim counts.
    """
    found: dict[str, str] = {}
    for name, claim in plan.project.papers[paper].claims.items():
        for candidate in plans:
            experiments = candidate.experiments(paper)
            if candidate.untested(claim) or any(
                group.experiment not in experiments
                for comparison in claim.comparisons
                for group in comparison.groups()
            ):
                continue
            try:
                part = candidate.part_arms(f"{paper}.{name}")
                arms = [candidate.arm(*arm) for arm in part]
            except UserError:
                # A mistake at another tier is for `cyclery check`, not for the evidence of this.
                continue
            if arms:
                planned = candidate.planned(claim)
                total = sum(planned * seconds(candidate, arm) for arm in arms)
                tried = [trial for arm in arms for trial in arm.trials]
                total += sum(len(trial.at) * seconds(candidate, trial.arm) for trial in tried)
                for search in (arm.search for arm in arms if arm.search):
                    studies = {at for seed in range(planned) for at in search.seeds(seed)}
                    total += len(studies) * seconds(candidate, search.arm)
                time = duration(total)
                found[name] = f"the {candidate.tier} tier tests it in about {time} of training"
                break
    return found


def _other(plan: Plan, tier: str) -> Plan | None:
    if tier == plan.tier:
        return None
    try:
        # An estimate needs no network, and to check the names of its parts imports torch.
        return Plan(at_tier(plan.project, tier), checked=True)
    except UserError:
        # Another project may have other tiers; then there is no estimate.
        return None


def rows(plan: Plan, parts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the cost of each part, parents included, and the sum where there are several.

    A row has ``part, shards, cells, runs, updates, images, done, seconds, bytes``; runs that parts
    share count once in the sum.
    """
    store = Store(plan.project.results / "store")
    parts = parts or plan.project.selected()
    shards = {part: plan.closure(part) for part in parts}
    runs = {arm.key(seed): arm for found in shards.values() for s in found for arm, seed in s.runs}
    records = {key: store.read(key) for key in runs}
    measured = _measured(runs, records)
    together = {shard.id: shard for found in shards.values() for shard in found}
    if len(parts) > 1:
        shards["all"] = list(together.values())
    for part, found in shards.items():
        own = {arm.key(seed): arm for shard in found for arm, seed in shard.runs}
        missing = [arm for key, arm in own.items() if records[key] is None]
        yield {
            "part": part,
            "shards": len(found),
            "cells": sum(len(shard.cells) for shard in found),
            "runs": len(own),
            "updates": sum(arm.cost["updates"] for arm in own.values()),
            "images": sum(arm.cost["images"] for arm in own.values()),
            "done": len(own) - len(missing),
            "seconds": sum(seconds(plan, arm, measured) for arm in missing),
            "bytes": RECORD_BYTES * len(own),
        }


def _measured(runs: dict[str, ArmPlan], records: Mapping[str, Record | None]) -> dict[str, float]:
    """Return the median training speed per network, in images per second, of finished runs."""
    rates: dict[str, list[float]] = {}
    for key, record in records.items():
        if record and record["status"] == "done":
            model = runs[key].settings["model"]["name"]
            rates.setdefault(model, []).append(record["images_per_second"])
    return {model: median(values) for model, values in rates.items()}


def show(plan: Plan, parts: list[str]) -> None:
    """Print a table of what is planned, what it costs and what is already done."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text(f"tier {plan.tier}: {plan.project.tier.title}")
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("part", overflow="fold")
    for name in ("shards", "cells", "runs", "updates", "done", "time left*", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(plan, parts):
        if row["part"] == "all":
            table.add_section()
        table.add_row(
            row["part"], f"{row['shards']}", f"{row['cells']}", f"{row['runs']}",
            amount(row["updates"]), f"{row['done']}", duration(row["seconds"]),
            f"{amount(row['bytes'])}B",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        "* one core or one GPU, training alone: speed as measured here where there are records, "
        "else as the tier declares; set-up, range tests and the report are not in it"
    )


def amount(number: float) -> str:
    """Return a number in three digits and a unit: ``950``, ``43.6 k``, ``1.37 G``."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 999.5 or unit == " T":
            break
        number /= 1000
    return f"{number:.3g}{unit}" if unit else f"{number:.0f}"
