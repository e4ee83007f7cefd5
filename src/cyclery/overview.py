"""What a plan holds and costs, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from cyclery.cells import ArmPlan
from cyclery.config.load import load
from cyclery.errors import UserError
from cyclery.plan import Plan, comparison_arms
from cyclery.store import Store
from cyclery.text import duration

# Bytes that one run leaves behind, measured at the smoke tier: its record in the store and again
# in its shard.
RECORD_BYTES = 12_000
# Used for a network that neither the tier nor any record knows the speed of.
UNKNOWN_IMAGES_PER_SECOND = 1000.0
TIERS = ("smoke", "desk", "paper")


def seconds(plan: Plan, arm: ArmPlan, measured: dict[str, float] | None = None) -> float:
    """Return the estimated training time of one run: measured here, or as the tier declares."""
    model = arm.settings["model"]["name"]
    rate = (measured or {}).get(model) or plan.project.tier.images_per_second.get(
        model, UNKNOWN_IMAGES_PER_SECOND
    )
    return arm.cost["images"] / rate


def claim_needs(plan: Plan, paper: str) -> dict[str, str]:
    """Say, for claims that this tier does not test, which tier does and how long it would take."""
    found: dict[str, str] = {}
    plans = [other for tier in TIERS if (other := _other(plan, tier)) is not None]
    for name, claim in plan.project.papers[paper].claims.items():
        for candidate in plans:
            reasons = claim.not_run
            if candidate.tier in reasons or "all" in reasons or not claim.comparisons:
                continue
            experiments = candidate.experiments(paper)
            if any(c.experiment not in experiments for c in claim.comparisons):
                continue
            arms = {
                (c.experiment, arm)
                for c in claim.comparisons
                for arm in (c.arm, *comparison_arms(c))
                if arm in candidate.arm_names(paper, c.experiment)
            }
            each = sum(
                seconds(candidate, trial)
                for exp, arm in arms
                for trial in candidate.trials(paper, exp, arm)
            )
            total = each * claim.seeds.get(candidate.tier, candidate.project.tier.seeds)
            found[name] = (
                f"the {candidate.tier} tier tests it in about {duration(total)} of training"
            )
            break
    return found


def _other(plan: Plan, tier: str) -> Plan | None:
    if tier == plan.tier:
        return None
    try:
        return Plan(load(plan.project.root, {"tier": tier}))
    except UserError:
        # A project of its own may have other tiers; then there is no estimate to give.
        return None


def rows(plan: Plan, parts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what each part holds: cells, runs, updates, images, and how much of it is done."""
    store = Store(plan.project.results / "store")
    for part in parts or plan.project.selected():
        cells = [cell for shard in plan.part_shards(part) for cell in shard.cells]
        runs = {arm.key(seed): arm for cell in cells for arm, seed in cell.runs}
        records = {key: store.read(key) for key in runs}
        rates: dict[str, list[float]] = {}
        for key, record in records.items():
            if record and record["status"] == "done":
                model = runs[key].settings["model"]["name"]
                rates.setdefault(model, []).append(record["images_per_second"])
        measured = {model: median(values) for model, values in rates.items()}
        missing = [arm for key, arm in runs.items() if records[key] is None]
        yield {
            "part": part,
            "shards": len(plan.part_shards(part)),
            "cells": len(cells),
            "runs": len(runs),
            "updates": sum(arm.cost["updates"] for arm in runs.values()),
            "images": sum(arm.cost["images"] for arm in runs.values()),
            "done": len(runs) - len(missing),
            "seconds": sum(seconds(plan, arm, measured) for arm in missing),
            "bytes": RECORD_BYTES * len(runs),
        }


def show(plan: Plan, parts: list[str]) -> None:
    """Print a table of what is planned, what it costs and what is already done."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"tier {plan.tier}: {plan.project.tier.title}", title_justify="left")
    table.add_column("part")
    for name in ("shards", "cells", "runs", "updates", "images", "done", "time left*", "disk"):
        table.add_column(name, justify="right")
    found = list(rows(plan, parts))
    for row in found:
        table.add_row(
            row["part"], f"{row['shards']}", f"{row['cells']}", f"{row['runs']}",
            f"{row['updates']:,}", f"{row['images']:,}", f"{row['done']}",
            duration(row["seconds"]), f"{row['bytes'] / 1e6:.1f} MB",
        )  # fmt: skip
    if len(found) > 1:
        table.add_section()
        total = {key: sum(row[key] for row in found) for key in found[0] if key != "part"}
        table.add_row(
            "all", f"{total['shards']}", f"{total['cells']}", f"{total['runs']}",
            f"{total['updates']:,}", f"{total['images']:,}", f"{total['done']}",
            duration(total["seconds"]), f"{total['bytes'] / 1e6:.1f} MB",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        "* one core or one GPU, training alone: speed as measured here where there are records, "
        "else as the tier declares; set-up, range tests and the report are not in it"
    )
