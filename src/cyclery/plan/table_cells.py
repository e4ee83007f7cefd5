"""Resolve the benchmark tables of a paper: which arm and which printed figure stand in each cell.

A cell takes what its row, its column and the table say. Row and column may not say different things
of the same; both hold over the table. Only the reasons of an empty cell may differ: that of the
method counts, which is lacking whatever the data. ``{name}`` in a text is a name of row or column;
``{row}`` and ``{column}`` are their heads, ``{row_group}`` and ``{column_group}`` the outermost
heads above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from cyclery.common.errors import choices, nearest
from cyclery.config.models import Paper
from cyclery.config.tables import FIELDS, BenchmarkTable, Line, Shows
from cyclery.records.evidence import PrintedFigure

_NAME = re.compile(r"\{(\w+)\}")
# A name may stand for a text with names.
_DEPTH = 5
Texts = tuple[str, ...]
# What a cell may take from lines or table. Printed fields, names and tiers are taken one by one.
_TAKEN = ("experiments", "arm", "metric", "shows", "by", "empty")
_MAPPINGS = ("names", "printed", "same")
# What may have names of lines in it.
_PATTERNS = ("names", "experiments", "arm", "metric", "printed")
# Names that every cell has.
_HEADS = ("row", "row_group", "column", "column_group")


@dataclass(frozen=True)
class Leaf:
    """A row or a column, with the heads above it and all that it inherits."""

    heads: Texts
    where: str
    said: Mapping[str, Any]
    competes: bool


@dataclass(frozen=True)
class TableCell:
    """What stands in one cell: a figure of ours, a printed one, both or neither."""

    row: int
    column: int
    metric: str
    shows: Shows
    sources: tuple[tuple[str, str], ...]
    """Experiments and arms that may give ours, the first that runs at a tier."""
    printed: int | None
    """Place among the printed figures of the paper."""
    by: str | None
    same: Mapping[str, str]
    competes: bool
    empty: str


@dataclass
class TableCells:
    """A table with its cells, and what is wrong with it."""

    rows: list[Leaf]
    columns: list[Leaf]
    cells: list[TableCell] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def leaves(lines: Sequence[Line], where: str) -> list[Leaf]:
    """Return the innermost lines in order, each with what those above it say."""
    found: list[Leaf] = []

    def go(lines: Sequence[Line], where: str, heads: Texts, above: dict[str, Any], c: bool) -> None:
        for place, line in enumerate(lines):
            at = f"{where}[{place}]"
            said = dict(above)
            for key in _TAKEN:
                value = getattr(line, key)
                # An empty list of experiments is said: none.
                if value or (key == "experiments" and value is not None):
                    said[key] = value
            for key in _MAPPINGS:
                said[key] = {**above.get(key, {}), **(getattr(line, key) or {})}
            if line.same is not None:
                said["same"] = line.same
                said["says_same"] = True
            path = (*heads, line.head)
            if line.of:
                go(line.of, f"{at}.of", path, said, c and line.competes)
            else:
                found.append(Leaf(path, at, said, c and line.competes))

    go(lines, where, (), {}, True)
    return found


class _Figures:
    """The printed figures of a paper by their fields: every cell asks, at every start."""

    def __init__(self, figures: Sequence[PrintedFigure]) -> None:
        self._figures = figures
        self._places: dict[Texts, dict[tuple[object, ...], list[int]]] = {}

    def places(self, wanted: Mapping[str, str]) -> list[int]:
        """Return where the figures stand that have all these fields."""
        keys = tuple(wanted)
        if keys not in self._places:
            found: dict[tuple[object, ...], list[int]] = {}
            for place, figure in enumerate(self._figures):
                values = tuple(figure.get(key) or "" for key in keys)
                found.setdefault(values, []).append(place)
            self._places[keys] = found
        return self._places[keys].get(tuple(wanted.values()), [])

    def differ(self, places: Iterable[int]) -> list[str]:
        """Return the fields in which figures differ."""
        found = [self._figures[place] for place in places]
        return [key for key in FIELDS if len({figure.get(key) for figure in found}) > 1]


def resolve_all(paper: Paper, printed: Sequence[PrintedFigure]) -> dict[str, TableCells]:
    """Return the cells of every table of a paper."""
    return {name: resolve(name, table, paper, printed) for name, table in paper.tables.items()}


def resolve(
    name: str, table: BenchmarkTable, paper: Paper, printed: Sequence[PrintedFigure]
) -> TableCells:
    """Return the cells of a table, with every mistake in it as a sentence."""
    where = f"tables.{name}"
    rows, columns = leaves(table.rows, f"{where}.rows"), leaves(table.columns, f"{where}.columns")
    found = TableCells(rows, columns)
    found.problems += _unknown_names(where, table, [*rows, *columns])
    figures, useful = _Figures(printed), set[str]()
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            problems: list[str] = []
            cell = _Cell(where, table, row, column, paper, figures, problems).resolve(i, j)
            found.cells.append(cell)
            found.problems += problems
            if cell.sources or cell.printed is not None or problems:
                useful |= {row.where, column.where}
    if not found.problems:
        found.problems += [
            f"{leaf.where}: {leaf.heads[-1]!r} shows nothing: no arm of ours and no printed figure "
            "of any cell; name them, or give the reason as `empty`."
            for leaf in (*rows, *columns)
            if leaf.where not in useful and "empty" not in leaf.said
        ]
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _unknown_names(where: str, table: BenchmarkTable, lines: Sequence[Leaf]) -> Iterator[str]:
    """Yield names in patterns that no line has: a cell that lacks one is empty without a word."""
    known = {*_HEADS, *(name for line in lines for name in line.said.get("names", {}))}
    said: list[tuple[str, Mapping[str, Any]]] = [(where, table.model_dump())]
    said += [(line.where, line.said) for line in lines]
    seen = set[tuple[str, str]]()
    for place, texts in said:
        for key in _PATTERNS:
            value = texts.get(key) or ()
            patterns = [value] if isinstance(value, str) else value
            for text in patterns.values() if isinstance(patterns, Mapping) else patterns:
                for name in _NAME.findall(text):
                    # What lines inherit is said once.
                    if name not in known and (name, text) not in seen:
                        seen.add((name, text))
                        yield (
                            f"{place}: no row or column has the name {name!r:.80} of "
                            f"{text!r:.80}.{nearest(name, known)} There are: {choices(known)}."
                        )


class _Cell:
    """One cell while it is resolved."""

    def __init__(
        self, where: str, table: BenchmarkTable, row: Leaf, column: Leaf, paper: Paper,
        figures: _Figures, problems: list[str],
    ) -> None:  # fmt: skip
        self.table, self.row, self.column, self.paper = table, row, column, paper
        self.where, self.figures, self.problems = where, figures, problems
        self.names = {
            **self._merged("names"),
            "row": row.heads[-1], "row_group": row.heads[0],
            "column": column.heads[-1], "column_group": column.heads[0],
        }  # fmt: skip

    def resolve(self, row: int, column: int) -> TableCell:
        metric = self._text(self._said("metric", self.table.metric)) or ""
        says = self._says_same()
        return TableCell(
            row, column, metric, self._said("shows", self.table.shows),
            tuple(self._sources()), self._printed(), self._said("by", None),
            self.table.same if says is None else says,
            self.row.competes and self.column.competes, self._reason(),
        )  # fmt: skip

    def _reason(self) -> str:
        """Return why nothing of ours may stand here: the method's reason, else that of the data."""
        row, column = self.row.said.get("empty"), self.column.said.get("empty")
        reason = row or column if self.table.methods == "rows" else column or row
        return reason or ""

    def _said(self, key: str, default: Any) -> Any:
        """Return what row or column say, else the table."""
        both = [leaf for leaf in (self.row, self.column) if key in leaf.said]
        if len(both) == 2 and both[0].said[key] != both[1].said[key]:
            self._conflict(key, both[0].said[key], both[1].said[key])
        return both[0].said[key] if both else default

    def _says_same(self) -> Mapping[str, str] | None:
        """Return what row or column say is the same; where one says that nothing is, it holds."""
        said = [leaf.said["same"] for leaf in (self.row, self.column) if "says_same" in leaf.said]
        if len(said) == 2 and said[0] != said[1] and all(said):
            self._conflict("same", said[0], said[1])
        return min(said, key=bool, default=None)

    def _merged(self, key: str) -> dict[str, str]:
        """Return a mapping of the table, row and column together."""
        row, column = self.row.said.get(key, {}), self.column.said.get(key, {})
        for name in row.keys() & column.keys():
            if row[name] != column[name]:
                self._conflict(f"{key}.{name}", row[name], column[name])
        return {**getattr(self.table, key, {}), **row, **column}

    def _conflict(self, key: str, one: Any, other: Any) -> None:
        self.problems.append(
            f"{self.column.where}: says {key} {other!r:.80}, and {self.row.where} says {one!r:.80}:"
            " two for one cell; leave it to one of them."
        )

    def _text(self, pattern: str) -> str | None:
        """Return a text with its names filled in; None where the cell lacks one."""
        text = pattern
        for _ in range(_DEPTH):
            wanted = _NAME.findall(text)
            if not wanted:
                return text
            if any(name not in self.names for name in wanted):
                return None
            text = _NAME.sub(lambda match: self.names[match[1]], text)
        self.problems.append(f"{self.row.where}: {pattern!r:.80}: its names never end.")
        return None

    def _texts(self, patterns: Sequence[str] | None) -> list[str]:
        return [text for text in map(self._text, patterns or ()) if text is not None]

    def _sources(self) -> Iterator[tuple[str, str]]:
        """Yield experiments and arms that exist, in the order in which they are looked for."""
        if any(leaf.said.get("experiments") == [] for leaf in (self.row, self.column)):
            return
        known = self.paper.experiments
        experiments = self._texts(self._said("experiments", self.table.experiments))
        arms = self._texts(self._said("arm", self.table.arm))
        for key, names in (
            ("experiments", experiments),
            ("arm", [arm.partition("/")[0] for arm in arms if "/" in arm]),
        ):
            for name in names:
                if name not in known:
                    self.problems.append(
                        f"{self._place(key)}: unknown experiment {name!r:.80}."
                        f"{nearest(name, known)} There are: {choices(known)}."
                    )
                    return
        for whole, some in groupby(arms, key=lambda arm: "/" in arm):
            if whole:
                yield from self._whole(some)
            else:
                plain = list(some)
                yield from (
                    (name, arm) for name in experiments for arm in plain if arm in known[name].arms
                )
                everywhere = {arm for experiment in known.values() for arm in experiment.arms}
                for arm in plain:
                    if experiments and arm not in everywhere:
                        self._unknown_arm(arm, experiments)

    def _whole(self, arms: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield arms that say their experiment, which exists."""
        for text in arms:
            name, _, arm = text.partition("/")
            if arm in self.paper.experiments[name].arms:
                yield name, arm
            else:
                self._unknown_arm(arm, [name])

    def _place(self, key: str) -> str:
        """Return where the key stands: on the row, on the column or on the table."""
        for leaf in (self.row, self.column):
            if key in leaf.said:
                return leaf.where
        return f"{self.where}.{key}"

    def _unknown_arm(self, arm: str, experiments: Sequence[str]) -> None:
        arms = list(dict.fromkeys(a for e in experiments for a in self.paper.experiments[e].arms))
        self.problems.append(
            f"{self._place('arm')}: unknown arm {arm!r:.80} in {choices(experiments)}."
            f"{nearest(arm, arms)} There are: {choices(arms)}."
        )

    def _printed(self) -> int | None:
        """Return the place of the printed figure; None where the paper prints none."""
        patterns = self._merged("printed")
        if not patterns:
            return None
        texts = {key: self._text(pattern) for key, pattern in patterns.items()}
        wanted = {key: text for key, text in texts.items() if text is not None}
        if len(wanted) < len(texts):
            return None
        places = self.figures.places(wanted)
        if len(places) > 1:
            said = ", ".join(f"{key} {text!r}" for key, text in wanted.items())
            differ = self.figures.differ(places)
            hint = f"they differ in {choices(differ)}" if differ else "they are alike"
            self.problems.append(
                f"{self.row.where}, {self.column.where}: {len(places)} printed figures for one "
                f"cell ({said}); {hint}."
            )
        return places[0] if places else None
