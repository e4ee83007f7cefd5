"""One table model with two renderings: HTML for the page, booktabs for LaTeX.

A cell is a text, a number, an `Estimate`, an arm's key (its position) or None for a dash; the
column says how to show it. Nothing here escapes by hand: both templates escape every value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import floor, log10
from textwrap import wrap
from typing import Literal, NotRequired, TypedDict

from cyclery.report.chart import colour
from cyclery.report.model import letter, number

Kind = Literal["text", "number", "estimate", "right", "key", "verdict"]
LONG = 40  # printed lines; a longer table breaks across pages in LaTeX and cannot float
WIDE = 108  # characters of a line of 170 mm
CUT = 400  # characters of a LaTeX cell: a row cannot break across pages
GAP, LONGEST = 1.7, 20.0  # characters: between columns, and of a word that is not broken

TONES = {  # dark enough for text on white
    "reproduced": "00614A", "contradicted": "993A00", "partly": "005A8F", "inconclusive": "465160",
    "not run": "55606F",
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, in the units of the table."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half the interval's width, or None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def even(self, digits: int) -> bool:
        """Tell whether the interval is symmetric to the digits shown."""
        if self.low is None or self.high is None:
            return True
        return abs(self.high + self.low - 2 * self.mean) <= 10.0**-digits


@dataclass(frozen=True)
class Column:
    """A column: its header, how its cells are shown, and its share of LaTeX's free width."""

    header: str
    kind: Kind = "text"
    digits: int = 2
    weight: float = 1.0


Cell = str | float | Estimate | None


class CellView(TypedDict):
    """A cell of the page."""

    kind: Kind
    text: str
    index: NotRequired[int]
    """The colour of an arm's key."""
    extra: NotRequired[str]
    """A number with its interval."""


class TableView(TypedDict):
    """What the page's template shows of a table."""

    table: Table
    rows: list[list[CellView]]
    right: str


class TexCell(TypedDict):
    """A cell of LaTeX and its way of being set."""

    way: Literal["key", "number", "text"]
    text: str
    shade: NotRequired[str]


class Panel(TypedDict):
    """The columns of a table that fit side by side."""

    spec: list[str]
    headers: list[list[str]]
    rows: list[list[TexCell]]
    free: bool


class TexTable(TypedDict):
    """What LaTeX's template shows of a table."""

    table: Table
    long: bool
    panels: list[Panel]


@dataclass(frozen=True)
class Table:
    """A table with the notes that belong under it. `slug` is its file name and label.

    Where it is too wide for a page, LaTeX sets its columns in panels one under another, each with
    the first `lead` columns; without a lead it is not split. `command` makes the table again.
    """

    slug: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    lead: int = 0
    command: str = ""

    def present(self, index: int) -> list[Cell]:
        """Return the cells of a column that hold something."""
        return [row[index] for row in self.rows if row[index] not in (None, "")]

    def trimmed(self) -> Table:
        """Return the table without the columns that are empty throughout."""
        return self._pick([i for i in range(len(self.columns)) if self.present(i)])

    def _pick(self, keep: list[int]) -> Table:
        rows = [[row[i] for i in keep] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in keep], rows=rows)

    @cached_property
    def _lopsided(self) -> set[int]:
        """The columns with an estimate whose interval needs [low, high]."""
        return {
            index
            for index, column in enumerate(self.columns)
            if any(isinstance(cell, Estimate) and not cell.even(column.digits)
                   for cell in self.present(index))
        }  # fmt: skip

    def view(self) -> TableView:
        """Return what the HTML template shows: texts and arms' keys, with their classes."""
        rows = [[self._html(i, cell) for i, cell in enumerate(row)] for row in self.rows]
        # The table's classes say which columns are set to the right: one a cell takes more room.
        right = " ".join(
            f"r{place}" for place, column in enumerate(self.columns, 1)
            if column.kind in ("number", "estimate", "right")
        )  # fmt: skip
        return {"table": self, "rows": rows, "right": right}

    def _html(self, index: int, cell: Cell) -> CellView:
        column = self.columns[index]
        if column.kind == "key" and isinstance(cell, int):
            return {"kind": "key", "text": letter(cell), "index": cell % 7}
        if isinstance(cell, Estimate):
            main = number(cell.mean, column.digits)
            if cell.half is None or cell.low is None or cell.high is None:
                return {"kind": "estimate", "text": main, "extra": ""}
            ends = f"[{number(cell.low, column.digits)}, {number(cell.high, column.digits)}]"
            extra = ends if index in self._lopsided else f"± {number(cell.half, column.digits)}"
            return {"kind": "estimate", "text": main, "extra": extra}
        if isinstance(cell, str):
            return {"kind": column.kind, "text": cell}
        return {"kind": column.kind, "text": number(cell, column.digits)}

    def tex_view(self) -> TexTable:
        """Return what the LaTeX template shows: the panels and whether they may break."""
        panels = [self._pick(keep) for keep in self._panels()]
        long = sum(panel._lines() for panel in panels) > LONG
        return {"table": self, "long": long, "panels": [panel._panel() for panel in panels]}

    def _panel(self) -> Panel:
        """Return one panel: column specification, headers in lines, rows of cells."""
        widths = self._widths()
        return {
            "spec": [self._spec(i, widths.get(i, 1.0)) for i in range(len(self.columns))],
            "headers": [self._header(i) for i in range(len(self.columns))],
            "rows": [[self._tex(i, cell) for i, cell in enumerate(row)] for row in self.rows],
            "free": bool(widths),
        }

    def _panels(self) -> list[list[int]]:
        """Return the columns of each panel, as many as fit next to the lead."""
        everything = list(range(len(self.columns)))
        if not self.lead or self._fits(everything):
            return [everything]
        lead, out = everything[: self.lead], [everything[: self.lead]]
        for index in everything[self.lead :]:
            if len(out[-1]) > self.lead and not self._fits([*out[-1], index]):
                out.append(list(lead))
            out[-1].append(index)
        return out

    def _fits(self, keep: list[int]) -> bool:
        """Estimate whether these columns leave texts enough of a line, counted in characters."""
        texts = [i for i in keep if self.columns[i].kind == "text"]
        used = sum(max(11 * self.columns[i].weight, self._least(i)) for i in texts)
        return used + sum(self._fixed[i] for i in keep if i not in texts) <= WIDE

    @cached_property
    def _fixed(self) -> list[float]:
        """The characters that each column takes where its cells do not break."""
        out: list[float] = []
        for index in range(len(self.columns)):
            cells = [self._html(index, cell) for cell in self.present(index)]
            widths = [len(f"{c['text']} {c.get('extra', '')}".strip()) for c in cells]
            out.append(max([*map(len, self._header(index)), *widths]) + GAP)
        return out

    def _least(self, index: int) -> float:
        """Return the characters that the longest word of a column of texts takes."""
        texts = [self.columns[index].header, *map(str, self.present(index))]
        words = (part for text in texts for part in _unbroken(text))
        return min(max((len(w) + 0.5 * sum(map(str.isupper, w)) for w in words), default=0),
                   LONGEST) + GAP  # fmt: skip

    def _widths(self) -> dict[int, float]:
        """Return how wide columns of texts are, in the mean 1: by weight, no narrower than a word.

        What one column needs beyond its share the others give in proportion.
        """
        left = {i: c.weight for i, c in enumerate(self.columns) if c.kind == "text"}
        count = len(left)
        room = WIDE - sum(self._fixed[i] for i in range(len(self.columns)) if i not in left)
        found: dict[int, float] = {}
        while left:
            scale = max(room, 1.0) / sum(left.values())
            narrow = {i for i, weight in left.items() if weight * scale < self._least(i)}
            for i in narrow or set(left):
                found[i] = self._least(i) if i in narrow else left[i] * scale
                room -= found[i]
                del left[i]
        total = sum(found.values())
        return {i: count * width / total for i, width in found.items()}

    def _header(self, index: int) -> list[str]:
        """Return a header in lines: those over numbers are broken so as not to widen them."""
        column = self.columns[index]
        return [column.header] if column.kind == "text" else wrap(column.header, 12) or [""]

    def _lines(self) -> float:
        """Estimate the printed lines in LaTeX, some 75 characters being free for texts."""
        total = sum(c.weight for c in self.columns if c.kind == "text") or 1.0
        return sum(
            max(
                (min(len(cell), CUT) * total / (75 * column.weight) // 1 + 1)
                if column.kind == "text" and isinstance(cell, str) else 1.0
                for column, cell in zip(self.columns, row, strict=True)
            )
            for row in self.rows
        )  # fmt: skip

    def _spec(self, index: int, share: float) -> str:
        column = self.columns[index]
        if column.kind == "text":
            width = f"\\hsize={share:.3f}\\hsize\\linewidth=\\hsize"
            # Only what follows a space can be hyphenated.
            return f">{{{width}\\raggedright\\arraybackslash\\hspace{{0pt}}}}X"
        if column.kind in ("key", "verdict"):
            return "l"
        if column.kind == "right" or (column.kind == "estimate" and index in self._lopsided):
            return "r"
        cells = self.present(index)
        values = [c.mean if isinstance(c, Estimate) else c for c in cells]
        numbers = [v for v in values if isinstance(v, int | float)]
        whole = max((1 + floor(log10(max(abs(v), 1))) for v in numbers), default=1)
        minus = "-" if any(v < 0 for v in numbers) else ""
        halves = [c.half for c in cells if isinstance(c, Estimate) and c.half is not None]
        spread = max((len(_uncertainty(h, column.digits)) for h in halves), default=0)
        return f"S[table-format={minus}{whole}.{column.digits}{f'({spread})' if spread else ''}]"

    def _tex(self, index: int, cell: Cell) -> TexCell:
        """Return one cell: its way of being set (see the template) and its text."""
        column = self.columns[index]
        if column.kind == "key" and isinstance(cell, int):
            return {"way": "key", "text": letter(cell), "shade": colour(cell).lstrip("#")}
        if column.kind == "verdict" and cell in TONES:
            return {"way": "key", "text": cell, "shade": TONES[str(cell)]}
        if isinstance(cell, Estimate) and index not in self._lopsided:
            half = "" if cell.half is None else f"({_uncertainty(cell.half, column.digits)})"
            return {"way": "number", "text": f"{cell.mean:.{column.digits}f}{half}"}
        if isinstance(cell, int | float) and column.kind == "number":
            return {"way": "number", "text": f"{cell:.{column.digits}f}"}
        shown = self._html(index, cell)
        text = " ".join(filter(None, (shown["text"], shown.get("extra", ""))))
        return {"way": "text", "text": text if len(text) <= CUT else text[: CUT - 1] + "\u2026"}


def _unbroken(text: str) -> list[str]:
    """Return what LaTeX keeps in one line: words, and their parts up to each hyphen."""
    return [part for word in text.split(" ") for part in re.split("(?<=[-/])", word)]


def _uncertainty(half: float, digits: int) -> str:
    """Return an uncertainty in units of the last digit, as siunitx reads it: 0.34 is 34."""
    return f"{round(half * 10**digits)}"
