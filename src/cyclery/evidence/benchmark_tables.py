"""Benchmark tables of a paper at a tier: what stands in each cell, and which of ours is best.

Cells point to arms and to printed figures of the same evidence, where the numbers stand once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cyclery.common.errors import UserError
from cyclery.config.tables import BenchmarkTable as Declared
from cyclery.evidence.contracts import ExperimentRuns, Records
from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.pairing import collect
from cyclery.plan.cost import TIERS, arm_seconds
from cyclery.plan.graph import Plan
from cyclery.plan.table_cells import Leaf, TableCell, TableCells
from cyclery.plan.table_checks import runs
from cyclery.records.evidence import (
    Arm,
    BenchmarkCell,
    BenchmarkTable,
    Experiment,
    FillCost,
    TableLine,
)
from cyclery.records.metrics import smaller_is_better

# What is trained by itself, an experiment and its arm.
Source = tuple[str, str]


@dataclass(frozen=True)
class Ours:
    """What a part has at its tier: experiments as judged, and what they were judged from."""

    judged: Sequence[Experiment]
    runs: Sequence[ExperimentRuns]
    records: Records


def tables(
    plan: Plan, paper: str, cells: Mapping[str, TableCells], ours: Ours, others: Sequence[Plan]
) -> list[BenchmarkTable]:
    """Return the tables of a paper that have something to show of this part.

    ``others`` are plans of other tiers, the cheapest first.
    """
    arms = {(e["id"], arm["id"]): arm for e in ours.judged for arm in e["arms"]}
    maker = _Tables(plan, paper, arms, others)
    whole = len(ours.judged) == len(plan.experiments(paper))
    found = []
    for name, declared in plan.project.papers[paper].tables.items():
        made = maker.table(name, declared, cells[name])
        _mark_best(made, cells[name], arms, ours)
        if whole or any(cell["experiment"] for cell in made["cells"]):
            found.append(made)
    return found


def _line(leaf: Leaf) -> TableLine:
    """Return a row or a column with who reproduced its figures, on whichever axis that is said."""
    return {"heads": list(leaf.heads), "by": leaf.said.get("by")}


class _Tables:
    """The tables of one paper while they are made."""

    def __init__(
        self, plan: Plan, paper: str, arms: Mapping[Source, Arm], others: Sequence[Plan]
    ) -> None:
        self.plan, self.paper, self.arms = plan, paper, arms
        self.tiers = {each.tier: each for each in others}
        self._seconds: dict[tuple[str, Source], dict[str, float] | None] = {}

    def table(self, name: str, declared: Declared, cells: TableCells) -> BenchmarkTable:
        made = [cell for each in cells.cells if (cell := self._cell(each))]
        return {
            "id": name, "title": declared.title, "caption": declared.caption,
            "methods": declared.methods, "spread": declared.spread,
            "same": {t: s for cell in cells.cells for t, s in cell.same.items()},
            "note": declared.note,
            "rows": [_line(leaf) for leaf in cells.rows],
            "columns": [_line(leaf) for leaf in cells.columns],
            "cells": made,
        }  # fmt: skip

    def _cell(self, cell: TableCell) -> BenchmarkCell | None:
        running = self._running(cell)
        source = running if running in self.arms else None
        fill = self._fill(cell, running)
        if cell.printed is None and running is None and fill is None and not cell.empty:
            return None
        experiment, arm = source or (None, None)
        lower = smaller_is_better(cell.metric) != (cell.shows == "error")
        return {
            "row": cell.row, "column": cell.column, "metric": cell.metric, "shows": cell.shows,
            "lower_is_better": lower, "experiment": experiment, "arm": arm,
            "same": bool(source) and self.plan.tier in cell.same,
            "best": False, "empty": self._reason(cell, source, running), "fill": fill,
            "printed": cell.printed,
        }  # fmt: skip

    def _running(self, cell: TableCell) -> Source | None:
        """Return the first of a cell's arms that runs at this tier, in this part or another."""
        return next((s for s in cell.sources if runs(self.plan, self.paper, s)), None)

    def _reason(self, cell: TableCell, source: Source | None, running: Source | None) -> str:
        """Return why a cell has nothing of ours; an empty text where it has."""
        if source is None:
            if running:
                return f"{'/'.join(running)} is not in this part"
            if cell.by and not cell.sources:
                return "figures of others"
            if cell.empty or not cell.sources:
                return cell.empty or "no arm of ours"
            return self._not_run(cell.sources)
        arm = self.arms[source]
        if not arm["n"]:
            lost = len(arm["diverged"])
            return f"all {lost} runs diverged" if lost else "no run has finished"
        return "" if cell.metric in arm["metrics"] else f"its runs have no {cell.metric}"

    def _not_run(self, sources: Iterable[Source]) -> str:
        experiments = self.plan.project.papers[self.paper].experiments
        for experiment, arm in sources:
            tier = experiments[experiment].tiers.get(self.plan.tier)
            if tier and arm in tier.not_run:
                return tier.not_run[arm]
        return f"not run at the {self.plan.tier} tier"

    def _fill(self, cell: TableCell, running: Source | None) -> FillCost | None:
        """Return the cost at the tier nearest to the paper; None where this tier is that one."""
        # The cheapest first; those with the paper's own setting are the nearest of all.
        for tier in sorted(reversed(TIERS), key=lambda tier: tier not in cell.same):
            if tier == self.plan.tier and running:
                return None
            for source in cell.sources if tier in self.tiers else ():
                seconds = self._time(self.tiers[tier], source)
                if seconds is not None:
                    return {"tier": tier, "run": "/".join(source), "seconds": seconds}
        return None

    def _time(self, plan: Plan, source: Source) -> dict[str, float] | None:
        """Return the training time of an arm at another tier; None where it does not run there."""
        key = (plan.tier, source)
        if key not in self._seconds:
            self._seconds[key] = None
            if runs(plan, self.paper, source):
                try:
                    self._seconds[key] = arm_seconds(plan, plan.arm(self.paper, *source))
                except UserError:
                    # A mistake at another tier is for `cyclery check`.
                    return None
        return self._seconds[key]


def _mark_best(
    table: BenchmarkTable, cells: TableCells, arms: Mapping[Source, Arm], ours: Ours
) -> None:
    """Mark ours that beat the next by more than the 95 % interval of the paired difference.

    Arms of different experiments are not paired, so where the next is of another one, none is best.
    """
    index = {experiment["id"]: experiment for experiment in ours.runs}
    for rivals in _rivals(table, cells):
        metric = rivals[0]["metric"]
        lower = smaller_is_better(metric)
        means = {source: arms[source]["metrics"][metric]["mean"] for source in map(_source, rivals)}
        if len(means) < 2:
            continue
        first, second = sorted(means, key=means.__getitem__, reverse=not lower)[:2]
        if first[0] != second[0]:
            continue
        pairs = collect(
            {"experiment": first[0], "arm": first[1], "against": second[1], "metric": metric,
             "lower_is_better": lower},
            index, ours.records,
        )  # fmt: skip
        if pairs.problem or pairs.missing or not pairs.differences:
            continue
        ends = paired_tests.interval(paired_tests.estimate(pairs.by_unit))
        # One that lost more runs than its rival is not the better one.
        if ends and ends[0] > 0 and "reproduced" not in pairs.unsafe("superiority"):
            for cell in rivals:
                cell["best"] = _source(cell) == first


def _source(cell: BenchmarkCell) -> Source:
    return cell["experiment"] or "", cell["arm"] or ""


def _rivals(table: BenchmarkTable, cells: TableCells) -> list[list[BenchmarkCell]]:
    """Group the cells of ours that compete.

    They stand in one column under one outer head of their rows (where methods are columns: in one
    row).
    """
    competing = {(cell.row, cell.column) for cell in cells.cells if cell.competes}
    groups: dict[tuple[object, ...], list[BenchmarkCell]] = {}
    for cell in table["cells"]:
        if cell["empty"] or (cell["row"], cell["column"]) not in competing:
            continue
        if table["methods"] == "rows":
            place, heads = cell["column"], table["rows"][cell["row"]]["heads"]
        else:
            place, heads = cell["row"], table["columns"][cell["column"]]["heads"]
        key = (place, tuple(heads[:-1]), cell["metric"])
        groups.setdefault(key, []).append(cell)
    return list(groups.values())
