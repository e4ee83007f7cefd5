"""Benchmark tables in LaTeX: spanning heads, numbers aligned at the point, panels where too wide.

Widths are estimated in characters of the tables' size, so that no LaTeX is needed to lay out.
"""

from __future__ import annotations

import re
from itertools import groupby
from math import ceil
from typing import TypedDict

from cyclery.report.tex import Tex, escape
from cyclery.report.view_types import BenchmarkView, GridCell, GridLine

# Millimetres of a line upright and turned, and of a character.
UPRIGHT, TURNED, _CHARACTER = 170, 257, 1.42
# Printed lines that a page has room for, upright and turned; a longer table breaks.
_LINES = {UPRIGHT: 60, TURNED: 43}
_HEAD, _LABEL, _CUT = 13, 36, 160  # characters: a line of a head, a row's label, the longest text
_NARROWER = (28, 22)
_GAP = 1.6
_NUMBER = re.compile(r"[+\u2212]?\d+(\.\d+)?")
# What `tex.escape` sets as one sign; others are written as their code points.
_SIGNS = re.compile("[ -~\u00a0-\u017f\u0391-\u03c9\u2010-\u2265]")
_CODE = 7
# What tables need, and what the report turns them with.
PACKAGES = ("array", "booktabs", "siunitx", "longtable", "pdflscape")


class Span(TypedDict):
    """A head over one or several columns, in lines."""

    size: int
    lines: list[str]
    rule: str
    """Columns that a rule below it spans: 2-4; empty without one."""


class Row(TypedDict):
    """A row, with the heads above it where they are new."""

    gap: bool
    groups: list[str]
    label: str
    inner: bool
    by: bool
    cells: list[Tex]


class Panel(TypedDict):
    """The columns that stand side by side."""

    spec: str
    heads: list[list[Span]]
    rows: list[Row]
    size: int
    lines: float
    """That it takes on a page, roughly."""
    long: bool
    """Whether it alone takes more than a page."""


class BenchmarkTex(TypedDict):
    """What LaTeX's template shows of a benchmark table."""

    table: BenchmarkView
    packages: str
    long: bool
    """Whether it may take more than a page."""
    turned: bool
    width: int
    panels: list[Panel]


def tex_view(table: BenchmarkView) -> BenchmarkTex:
    """Lay out a table: upright where it fits, else turned, else in panels that repeat the rows."""
    columns = [_Column(table, j) for j in range(len(table["columns"]))]
    labels = (_long(r["heads"][-1]) + (6 if any(r["heads"][:-1]) else 3) for r in table["rows"])
    longest = min(max(labels, default=0), _LABEL)
    used = sum(column.width for column in columns)
    # A label in two lines is better than a table that is turned or split.
    tries = [(w, min(longest, most)) for w in (UPRIGHT, TURNED) for most in (_LABEL, *_NARROWER)]
    fits = (one for one in tries if (used + one[1]) * _CHARACTER <= one[0])
    width, label = next(fits, (TURNED, longest))
    panels = _panels(columns, width / _CHARACTER - label)
    made = [_panel(table, each, label, _LINES[width], len(panels) > 1) for each in panels]
    lines = sum(panel["lines"] for panel in made) + _around(table, width)
    broken = any(panel["long"] for panel in made)
    return {
        "table": table, "packages": ", ".join(PACKAGES[: 4 if broken else 3]), "width": width,
        "long": lines > _LINES[width], "turned": width == TURNED, "panels": made,
    }  # fmt: skip


def _panels(columns: list[_Column], room: float) -> list[list[_Column]]:
    """Deal columns to panels, those under a common head together where they fit into one."""
    panels: list[list[_Column]] = []
    for _, group in groupby(columns, key=lambda column: tuple(column.line["heads"][:-1])):
        members = list(group)
        whole = sum(column.width for column in members) <= room
        for part in [members] if whole else [[column] for column in members]:
            size = sum(column.width for column in part)
            if not panels or sum(column.width for column in panels[-1]) + size > room:
                panels.append([])
            panels[-1] += part
    return panels


class _Column:
    """A column with how it is set and how wide it is, in characters."""

    def __init__(self, table: BenchmarkView, place: int) -> None:
        self.line: GridLine = table["columns"][place]
        self.cells = [row[place] for row in table["cells"]]
        self.bys = [
            bool(row["by"] or self.line["by"]) and "printed" in (row["value"], self.line["value"])
            for row in table["rows"]
        ]
        numbers = [cell for cell in self.cells if _NUMBER.fullmatch(cell["text"])]
        self.ends = self.line["value"] == "difference" and any(c["interval"] for c in numbers)
        self.spec, size = ("r", 0.0) if self.ends else _number_column(numbers)
        texts = max((len(self._words(cell)) for cell in self.cells), default=0)
        size = max(size, 0 if numbers and not self.ends else texts, 4)
        self.head = _wrapped(self.line["heads"][-1], _HEAD)
        # Capitals are wider than figures.
        heads = (_long(line) + 0.4 * sum(map(str.isupper, line)) for line in self.head)
        self.width = max(size, *heads) + _GAP

    def _words(self, cell: GridCell) -> str:
        return " ".join(filter(None, (cell["text"], cell["interval"] if self.ends else "")))

    def tex(self, place: int) -> Tex:
        """Return the source of a cell: a number as siunitx reads it, or a text in braces."""
        cell = self.cells[place]
        style = r"\itshape " if self.bys[place] else ""
        style += r"\bfseries " if cell["bold"] else ""
        mark = rf"\textsuperscript{{{cell['note']}}}" if cell["note"] else ""
        if self.spec.startswith("S") and _NUMBER.fullmatch(cell["text"]):
            number = cell["text"].replace("\u2212", "-")
            spread = f" +- {cell['spread']}" if _NUMBER.fullmatch(cell["spread"]) else ""
            return Tex(f"{style}{number}{spread}{f' {{{mark}}}' if mark else ''}")
        words = self._words(cell)
        if not words:
            return Tex("{}")
        return Tex(f"{{{style}{escape(words)}{mark}}}")


def _number_column(cells: list[GridCell]) -> tuple[str, float]:
    """Return the kind of column that aligns these numbers, and its width in characters."""
    if not cells:
        return "c", 0.0
    parts = [cell["text"].lstrip("+\u2212").partition(".") for cell in cells]
    whole, point = max(len(p[0]) for p in parts), max(len(p[2]) for p in parts)
    signs = {cell["text"][0] for cell in cells} & {"+", "\u2212"}
    sign = "" if not signs else "+" if "+" in signs else "-"
    spreads = [c["spread"] for c in cells if _NUMBER.fullmatch(c["spread"])]
    # Digits of an uncertainty are counted in units of the last decimal.
    spread = max((len(s.partition(".")[0].lstrip("0")) for s in spreads), default=0) + point
    keys = max((cell["note"] for cell in cells), key=len)
    options = f"table-format={sign}{whole}.{point}{f'({max(spread, 1)})' if spreads else ''}"
    if keys:
        options += rf",table-space-text-post={{\textsuperscript{{{keys}}}}}"
    size = len(sign) + whole + point + 1 + (3 + max(map(len, spreads)) if spreads else 0)
    return f"S[{options}]", size + 0.7 * len(keys)


def _panel(
    table: BenchmarkView, columns: list[_Column], label: float, most: int, part: bool
) -> Panel:
    """Return a panel; one that is `part` of its table leaves out rows of which it has nothing."""
    rows: list[Row] = []
    above: list[str] = []
    for place, line in enumerate(table["rows"]):
        if part and not any(column.cells[place]["text"] for column in columns):
            continue
        outer = [head for head in line["heads"][:-1] if head]
        new = outer if outer != above else []
        gap, above = bool(rows) and outer != above, outer
        rows.append({
            "gap": gap, "groups": [_cut(head, 90) for head in new],
            "label": _cut(line["heads"][-1], _CUT), "inner": bool(outer), "by": bool(line["by"]),
            "cells": [column.tex(place) for column in columns],
        })  # fmt: skip
    spec = rf">{{\raggedright\arraybackslash}}p{{{label * _CHARACTER:.0f}mm}}"
    heads = _heads(columns)
    lines = sum(max(len(span["lines"]) for span in level) for level in heads) + sum(
        len(row["groups"]) + row["gap"] / 2 + ceil(_long(row["label"]) / label) for row in rows
    )
    return {"spec": spec + "".join(c.spec for c in columns), "heads": heads, "rows": rows,
            "size": len(columns) + 1, "lines": lines, "long": lines > most}  # fmt: skip


def _heads(columns: list[_Column]) -> list[list[Span]]:
    """Return the levels of heads; neighbours with the same outer heads share them."""
    levels: list[list[Span]] = []
    depth = len(columns[0].line["heads"])
    for level in range(depth - 1):
        spans: list[Span] = []
        first = 2
        for path, group in groupby(columns, key=lambda c: tuple(c.line["heads"][: level + 1])):
            members = list(group)
            # Empty heads are no common head.
            for part in [members] if path[-1] else [[one] for one in members]:
                size = len(part)
                room = int(sum(column.width for column in part))
                lines = _wrapped(path[-1], max(room, _HEAD)) if path[-1] else [""]
                rule = f"{first}-{first + size - 1}" if path[-1] else ""
                spans.append({"size": size, "lines": lines, "rule": rule})
                first += size
        if any(span["rule"] for span in spans):
            levels.append(spans)
    return [*levels, [{"size": 1, "lines": column.head, "rule": ""} for column in columns]]


def _around(table: BenchmarkView, width: int) -> float:
    """Estimate the lines of what stands above and below a table."""
    above = sum(ceil(_long(text) * 1.3 / width) for text in (*table["lines"], table["caption"]))
    return above + 0.8 * ceil(_long(" ".join((*table["notes"], table["command"]))) / width) + 2


def _long(text: str) -> int:
    """Return how many characters wide a text is set."""
    return sum(1 if _SIGNS.fullmatch(char) else _CODE for char in text)


def _cut(text: str, most: int) -> str:
    return text if _long(text) <= most else text[: most - 1] + "\u2026"


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many characters; words that are longer are broken."""
    lines = [""]
    for word in _cut(text, _CUT).split():
        for start, piece in enumerate(_pieces(word, width)):
            gap = " " if lines[-1] and not start else ""
            if _long(lines[-1] + gap + piece) <= width:
                lines[-1] += gap + piece
            else:
                lines.append(piece)
    return [line for line in lines if line] or [""]


def _pieces(word: str, width: int) -> list[str]:
    """Break a word that is longer than a line."""
    if _long(word) <= width:
        return [word]
    pieces = [""]
    for char in word:
        if pieces[-1] and _long(pieces[-1] + char) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces
