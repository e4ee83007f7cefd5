"""Join the evidence of all tiers about one table of a paper, with the methods in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from cyclery.records.evidence import (
    Arm,
    BenchmarkCell,
    BenchmarkTable,
    Evidence,
    FillCost,
    Metric,
    PrintedFigure,
    TableLine,
)

# Row and column.
Place = tuple[int, int]


@dataclass(frozen=True)
class Ours:
    """A figure of ours at one tier."""

    cell: BenchmarkCell
    arm: Arm
    metric: Metric
    tier: str

    @property
    def same(self) -> bool:
        """Whether it has the paper's data and setting."""
        return self.cell["same"]

    @property
    def source(self) -> tuple[str | None, str | None]:
        """Experiment and arm."""
        return self.cell["experiment"], self.cell["arm"]


@dataclass(frozen=True)
class Printed:
    """A figure that the paper prints."""

    cell: BenchmarkCell
    figure: PrintedFigure


@dataclass
class Joined:
    """A table with what every tier has of it; its methods are in rows, however it is printed."""

    table: BenchmarkTable
    rows: list[TableLine]
    columns: list[TableLine]
    printed: dict[Place, Printed] = field(default_factory=dict)
    ours: dict[str, dict[Place, Ours]] = field(default_factory=dict)
    empty: dict[str, dict[Place, str]] = field(default_factory=dict)
    fill: dict[Place, FillCost] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    """Tiers to the sense in which they have the paper's setting."""
    strange: dict[str, dict[str, None]] = field(default_factory=dict)
    """Tiers to lines with ours that this declaration does not have, as of an older one."""
    parts: list[Evidence] = field(default_factory=list)
    """Those that have a figure of ours here."""

    @property
    def turned(self) -> bool:
        """Whether the paper prints the methods in columns."""
        return self.table["methods"] == "columns"

    def add(self, part: Evidence, table: BenchmarkTable) -> None:
        """Take the cells of a part; lines are matched by their heads, and what came first stays."""
        arms = {(e["id"], arm["id"]): arm for e in part["experiments"] for arm in e["arms"]}
        rows, columns = _turned(table)
        to_row, to_column = _places(rows, self.rows), _places(columns, self.columns)
        tier = part["tier"]
        ours, empty = self.ours.setdefault(tier, {}), self.empty.setdefault(tier, {})
        for name, sense in table["same"].items():
            self.same.setdefault(name, sense)
        before = len(ours)
        for cell in table["cells"]:
            at = (cell["row"], cell["column"])
            row, column = at if table["methods"] == "rows" else at[::-1]
            place = (to_row.get(row, -1), to_column.get(column, -1))
            if min(place) < 0:
                if not cell["empty"]:
                    line = columns[column] if place[1] < 0 else rows[row]
                    self.strange.setdefault(tier, {})[", ".join(line["heads"])] = None
                continue
            if cell["printed"] is not None:
                self.printed.setdefault(place, Printed(cell, part["printed"][cell["printed"]]))
            if cell["fill"]:
                self.fill.setdefault(place, cell["fill"])
            arm = arms.get((cell["experiment"] or "", cell["arm"] or ""))
            metric = arm["metrics"].get(cell["metric"]) if arm else None
            if arm and metric and not cell["empty"]:
                ours.setdefault(place, Ours(cell, arm, metric, tier))
            else:
                empty.setdefault(place, cell["empty"])
        if len(ours) > before:
            self.parts.append(part)

    def full_rows(self) -> list[int]:
        """Return the rows that have a figure, of ours or printed."""
        places = [*self.printed, *(place for cells in self.ours.values() for place in cells)]
        return sorted({row for row, _ in places})

    def tiers(self) -> list[str]:
        """Return the tiers with figures of ours, the nearest to the paper first."""
        found = [tier for tier, cells in self.ours.items() if cells]
        return sorted(found, key=self._distance)

    def _distance(self, tier: str) -> tuple[bool, float, str]:
        """Tell how far a tier is from the paper: near with its setting, or with much training."""
        cells = self.ours[tier].values()
        images = {one.source: one.arm["images"] or 0.0 for one in cells}
        return not any(one.same for one in cells), -fmean(images.values()), tier


def _turned(table: BenchmarkTable) -> tuple[list[TableLine], list[TableLine]]:
    """Return rows and columns of a table so that the methods are in rows."""
    lines = table["rows"], table["columns"]
    return lines if table["methods"] == "rows" else lines[::-1]


def _keys(lines: Iterable[TableLine]) -> list[tuple[tuple[str, ...], int]]:
    """Return what a line is known by: its heads, and how many before it have the same."""
    seen = Counter[tuple[str, ...]]()
    keys = []
    for line in lines:
        heads = tuple(line["heads"])
        keys.append((heads, seen[heads]))
        seen[heads] += 1
    return keys


def _places(lines: Sequence[TableLine], among: Sequence[TableLine]) -> dict[int, int]:
    """Return where each line stands among others; without those that are not there."""
    known = {key: place for place, key in enumerate(_keys(among))}
    return {i: known[key] for i, key in enumerate(_keys(lines)) if key in known}


def joined(parts: Sequence[Evidence], others: Sequence[Evidence]) -> list[Joined]:
    """Return every table of a paper that has a figure, in the order of its declaration.

    Args:
        parts: the evidence that the report is of, whose declaration of a table leads.
        others: evidence of the same paper at other tiers.
    """
    found: dict[str, Joined] = {}
    for own, part in [*((True, p) for p in parts), *((False, p) for p in others)]:
        for table in part["tables"]:
            if own and table["id"] not in found:
                found[table["id"]] = Joined(table, *_turned(table))
            if table["id"] in found:
                found[table["id"]].add(part, table)
    return [one for one in found.values() if one.printed or one.tiers()]


def showing(parts: Sequence[Evidence]) -> list[list[str]]:
    """Return the titles of the tables that show each printed figure, of all parts in order."""
    out: list[list[str]] = []
    for part in parts:
        titles: list[list[str]] = [[] for _ in part["printed"]]
        for table in part["tables"]:
            for place in {c["printed"] for c in table["cells"] if c["printed"] is not None}:
                titles[place].append(table["title"])
        out += titles
    return out
