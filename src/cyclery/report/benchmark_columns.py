"""Columns of a benchmark table whose methods are in rows: printed, ours of every tier, difference.

Ours stand beside what is printed, with their difference, where they have the paper's data and
setting; else under a head of their own, where declared columns with the same runs are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cyclery.report.benchmark_cells import (
    Entry,
    Notes,
    cell,
    difference,
    of_ours,
    of_printed,
    ours_entry,
    printed_entry,
    shown,
)
from cyclery.report.benchmark_join import Joined, Ours
from cyclery.report.model import duration
from cyclery.report.view_types import GridLine, Value
from cyclery.report.words import listed

_MOST = 3  # names in a head
_OTHERS = "figures of others"


@dataclass
class Strip:
    """One column of the grid, with an entry for every row that has a figure."""

    heads: list[str]
    value: Value
    tier: str
    by: str | None
    entries: list[Entry]

    def line(self) -> GridLine:
        """Return the column's head."""
        return {"heads": self.heads, "value": self.value, "by": self.by, "tier": self.tier}


@dataclass
class Group:
    """Declared columns of a tier that show the same runs."""

    words: str
    """The data of their arms."""
    shows: frozenset[tuple[str, str]]
    columns: list[int]
    ours: dict[int, Ours] = field(default_factory=dict)
    """By row."""

    def agrees(self, found: dict[int, Ours]) -> bool:
        """Tell whether a column has the same runs wherever both have some."""
        both = self.ours.keys() & found.keys()
        return bool(both) and all(self.ours[i].source == found[i].source for i in both)


def strips(table: Joined, notes: Notes, sources: dict[str, int]) -> list[Strip]:
    """Return the columns of the grid that hold something, in order."""
    maker = _Maker(table, notes, sources)
    beside, apart = list(maker.beside()), [s for t in table.tiers() for s in maker.apart(t)]
    # Ours of the tier nearest to the paper come first: many printed columns would hide them.
    found = [*beside, *apart] if maker.near else [*apart, *beside]
    for strip, heads in zip(found, padded([strip.heads for strip in found]), strict=True):
        strip.heads = heads
    return found


def padded(heads: list[list[str]]) -> list[list[str]]:
    """Return the heads of lines with as many levels for all, empty ones above the innermost."""
    most = max(map(len, heads), default=0)
    return [[*h[:-1], *[""] * (most - len(h)), h[-1]] for h in heads]


class _Maker:
    """The columns of one table while they are made."""

    def __init__(self, table: Joined, notes: Notes, sources: dict[str, int]) -> None:
        self.table, self.notes, self.sources = table, notes, sources
        spread = table.table["spread"] == "sd"
        self.printed = {at: of_printed(one, spread) for at, one in table.printed.items()}
        self.tiers = table.tiers()
        self.near = [t for t in self.tiers if any(o.same for o in table.ours[t].values())]
        self.rows = table.full_rows()

    def beside(self) -> Iterator[Strip]:
        """Yield what is printed and, beside it, ours of the same setting with their difference."""
        for j, line in enumerate(self.table.columns):
            heads, by = line["heads"], line["by"]
            printed = any((i, j) in self.table.printed for i in self.rows)
            if printed:
                outer = ["Printed"] if self.tiers and not self.near else []
                inner = ["printed"] if self.near else []
                entries = [self._printed(i, j) for i in self.rows]
                yield Strip([*outer, *heads, *inner], "printed", "", by, entries)
            for tier in self.near:
                cells = self.table.ours[tier]
                same = {i: cells[i, j] for i in self.rows
                        if (i, j) in cells and cells[i, j].same}  # fmt: skip
                if not same:
                    continue
                name = f", {tier} tier" if len(self.near) > 1 else ""
                entries = [
                    ours_entry(same[i], self.notes) if i in same else self._empty(tier, i, [j])
                    for i in self.rows
                ]
                yield Strip([*heads, f"ours{name}"], "ours", tier, None, entries)
                if printed:
                    entries = [self._difference(same.get(i), i, j) for i in self.rows]
                    strip = Strip([*heads, f"difference{name}"], "difference", tier, None, entries)
                    yield from [strip] if any(entry.figure for entry in entries) else []

    def apart(self, tier: str) -> Iterator[Strip]:
        """Yield ours of a tier that have not the paper's data or setting."""
        found = self._groups(tier)
        several = len({one for group in found for one in group.shows}) > 1
        labels = []
        for group in found:
            inner = self.table.columns[group.columns[0]]["heads"][-1:] if several else []
            labels.append([group.words, *inner])
        for group, label in zip(found, self._told_apart(found, labels), strict=True):
            entries = [
                ours_entry(group.ours[i], self.notes) if i in group.ours
                else self._empty(tier, i, group.columns)
                for i in self.rows
            ]  # fmt: skip
            yield Strip([f"Ours, {tier} tier", *label], "ours", tier, None, entries)

    def _groups(self, tier: str) -> list[Group]:
        groups: list[Group] = []
        cells = self.table.ours[tier]
        for j in range(len(self.table.columns)):
            found = {i: cells[i, j] for i in self.rows
                     if (i, j) in cells and not cells[i, j].same}  # fmt: skip
            if not found:
                continue
            data = few(one.arm["data"] for one in found.values())
            shows = frozenset((o.cell["metric"], o.cell["shows"]) for o in found.values())
            for group in groups:
                if (group.words, group.shows) == (data, shows) and group.agrees(found):
                    group.columns.append(j)
                    group.ours = {**found, **group.ours}
                    break
            else:
                groups.append(Group(data, shows, [j], found))
        return groups

    def _told_apart(self, groups: list[Group], labels: list[list[str]]) -> list[list[str]]:
        """Add declared heads to labels that several groups have: the innermost, or all."""
        for whole in (False, True):
            count = Counter(map(tuple, labels))
            labels = [
                [*label[:-1], f"{group.words}, for {self._names(group, whole)}"]
                if count[tuple(label)] > 1 else label
                for group, label in zip(groups, labels, strict=True)
            ]  # fmt: skip
        return labels

    def _names(self, group: Group, whole: bool) -> str:
        heads = (self.table.columns[j]["heads"] for j in group.columns)
        return few(", ".join(h) if whole else h[-1] for h in heads)

    def _printed(self, i: int, j: int) -> Entry:
        printed = self.table.printed.get((i, j))
        if printed is None:
            return Entry(cell())
        return printed_entry(printed, self.printed[i, j], self.notes, self.sources)

    def _difference(self, ours: Ours | None, i: int, j: int) -> Entry:
        figure = self.printed.get((i, j))
        if ours is None or figure is None:
            return Entry(cell())
        return shown(difference(of_ours(ours), figure), "ours minus printed", sign=True)

    def _empty(self, tier: str, i: int, columns: list[int]) -> Entry:
        """Return a dash with the reason in a note; nothing in a line of others' figures."""
        at = [(i, j) for j in columns]
        if any(place in self.table.ours[tier] for place in at):
            reason = "stands apart: not the paper's data or setting"
        else:
            said = self.table.empty[tier]
            reasons = [said[place] for place in at if said.get(place)]
            other = "its evidence has other lines" if tier in self.table.strange else ""
            reason = reasons[0] if reasons else other or "no arm of ours"
        fill = next((f for place in at if (f := self.table.fill.get(place))), None)
        cost = ""
        if fill:
            time = duration(sum(fill["seconds"].values()))
            cost = f"; about {time} at the {fill['tier']} tier"
        if reason == _OTHERS or (self.table.rows[i]["by"] and not fill):
            return Entry(cell(title=reason))
        note = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
        return Entry(cell("\u2013", f"{reason}{cost}", self.notes.key(note)))


def few(names: Iterable[str]) -> str:
    """Return distinct names as a sentence lists them, the first alone where they are many."""
    found = list(dict.fromkeys(name for name in names if name))
    if len(found) <= _MOST:
        return listed(found)
    return f"{found[0]} and {len(found) - 1} others"
