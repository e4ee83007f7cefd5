"""Pages of panels that figures are drawn on, and the shared style of all figures.

One unit is one point; a page is 300 wide, so that it reads at full size on a phone and three stand
side by side on a desktop. Arms carry a letter and a colour of `PALETTE`, the same in tables and
figures. A page is a list of `shapes`: `svg` writes them for the page, where a thousand figures must
be small and change with its theme, and `pdf` draws them with matplotlib for other documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, floor, log10
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cyclery.report.model import compact, cut, round_places
from cyclery.report.shapes import (
    INK,
    MARKS,
    SIZE,
    Area,
    Box,
    Points,
    Shape,
    Side,
    Stroke,
    Words,
    corners,
    finite,
    thin,
)

# Okabe-Ito without its yellow, which cannot be read on white, and with a grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES: tuple[tuple[float, ...], ...] = ((), (5.2, 2), (1.3, 1.6), (6.5, 2, 1.3, 2))
GRID = "#D0D3D8"
PALE = 0.16  # opacity of bands
WIDTH, LEFT, RIGHT = 300.0, 34.0, 30.0
LETTER = 8.5  # height of a letter at the end of a line
KEY = 12.0  # height of a line's name below a panel
HEAD, FOOT = 18.0, 16.0  # over a panel for its heading, under it for its ticks
_UNDER = 9.0  # for the name of the horizontal axis

Place = Literal["base", "middle", "top"]


@dataclass(frozen=True)
class Chart:
    """A figure with its text alternative; ``draw`` adds the panels to an empty page."""

    slug: str
    title: str
    description: str
    panels: Sequence[float]  # heights in points, from the top down
    draw: Callable[[Page], None]
    data: list[list[Any]] = field(default_factory=list)  # rows of a CSV, the header first

    @cached_property
    def page(self) -> Page:
        """Return the page with everything drawn on it."""
        page = Page(self.panels)
        self.draw(page)
        return page


def drawable(text: str, limit: int = 60) -> str:
    """Return a text in one line, cut to `limit`."""
    return cut(" ".join(text.split()), limit)


def colour(index: int) -> str:
    """Return the colour of the arm at this position."""
    return PALETTE[index % len(PALETTE)]


def dash(index: int) -> tuple[float, ...]:
    """Return the dash pattern of the arm at this position: solid until colours repeat."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def floats(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers as float64, null as NaN (which leaves a gap)."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """Return the finite range of some values, widened by a share of it."""
    found = floats(values)
    found = found[np.isfinite(found)]
    if not found.size:
        return 0.0, 1.0
    low, high = float(found.min()), float(found.max())
    extra = pad * (high - low) or 0.05 * abs(high) or 1.0
    return low - extra, high + extra


class Panel:
    """Axes with places in the units of the data: ``x`` from left to right, ``y`` upwards."""

    def __init__(
        self, page: Page, box: Box, x: tuple[float, float], y: tuple[float, float], log: bool
    ) -> None:
        self.page, self.box, self.x, self.y, self.log = page, box, x, y, log
        self.ticks: list[float] = []

    def at(self, x: Any, y: Any) -> Points:
        """Return the places of some points on the page; NaN where a logarithm has none."""
        left, top, width, height = self.box
        values, ends = np.asarray(x, dtype=np.float64), np.array(self.x)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values, ends = np.log10(values), np.log10(ends)
        across = left + width * (values - ends[0]) / (ends[1] - ends[0])
        up = (np.asarray(y, dtype=np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        along = top + height * (1 - up)
        return np.stack(np.broadcast_arrays(across, along), axis=-1).reshape(-1, 2)

    def _cut(self, places: Sequence[Points]) -> Box | None:
        """Return this panel's box where something lies outside of it."""
        left, top, width, height = self.box
        inside = all(
            (p >= (left - 0.05, top - 0.05)).all()
            and (p <= (left + width + 0.05, top + height + 0.05)).all()
            for p in places
        )
        return None if inside else self.box

    def lines(
        self, found: Sequence[tuple[Any, Any]], shade: str, width: float,
        dash: tuple[float, ...] = (), opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw lines (their x, their y) of one look; what is not finite leaves a gap."""
        pieces = [thin(piece) for x, y in found for piece in finite(self.at(x, y))]
        if pieces:
            self.page.shapes.append(
                Stroke(pieces, shade, width, dash, opacity, not dash, self._cut(pieces))
            )

    def line(
        self, x: Any, y: Any, shade: str, width: float,
        dash: tuple[float, ...] = (), opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw a line."""
        self.lines([(x, y)], shade, width, dash, opacity)

    def dots(self, x: Any, y: Any, shade: str, size: float, opacity: float = 1.0) -> None:
        """Draw dots of this diameter."""
        places = [p[None] for p in self.at(x, y) if np.isfinite(p).all()]
        if places:
            box = self._cut(places)
            self.page.shapes.append(Stroke(places, shade, size, (), opacity, True, box))

    def mark(
        self, x: float, y: float, shape: str, shade: str, size: float, opacity: float = 1.0
    ) -> None:
        """Draw one mark of a shape of `MARKS`, or a dot."""
        if shape == "dot":
            self.dots(x, y, shade, size, opacity)
            return
        corners, filled = MARKS[shape]
        lines = [self.at(x, y) + size / 2 * np.array(line) for line in corners]
        if not np.isfinite(lines[0]).all():
            return
        if filled:
            self.page.shapes.append(Area(lines[0], shade, opacity, self._cut(lines)))
        else:
            stroke = Stroke(lines, shade, 1.0, (), opacity, True, self._cut(lines))
            self.page.shapes.append(stroke)

    def band(self, x: Any, low: Any, high: Any, shade: str) -> None:
        """Fill between two lines where both are finite, as one area."""
        under, over = self.at(x, low), self.at(x, high)
        some = np.isfinite(under).all(axis=1) & np.isfinite(over).all(axis=1)
        if some.any():
            edge = np.concatenate([thin(under[some]), thin(over[some])[::-1]])
            self.page.shapes.append(Area(edge, shade, PALE, self._cut([edge])))

    def column(self, low: float, high: float, shade: str, opacity: float) -> None:
        """Fill the panel between two places of the horizontal axis."""
        (left, _), (right, _) = self.at([low, high], self.y[0])
        edge = corners((left, self.box[1], right - left, self.box[3]))
        self.page.shapes.append(Area(edge, shade, opacity, self._cut([edge])))

    def words(
        self, x: float, y: float, text: str, shade: str = INK, size: float = SIZE,
        side: Side = "start", at: Place = "base", bold: bool = False, framed: bool = False,
    ) -> None:  # fmt: skip
        """Write a text whose baseline, middle or top lies at a point."""
        [(left, top)] = self.at(x, y)
        self.page.words(left, top, text, shade, size, side, at, bold, framed)

    def end_labels(self, labels: list[tuple[float, str, str]]) -> None:
        """Write (value, text, colour) at the right ends of lines."""
        left, top, width, height = self.box
        low, high = self.y
        found = sorted(((v - low) / (high - low), t, c) for v, t, c in labels if np.isfinite(v))
        places = spread([min(max(p, 0.0), 1.0) for p, _, _ in found], LETTER / height)
        for place, (_, text, shade) in zip(places, found, strict=True):
            y = top + height * (1 - place)
            self.page.words(left + 1.015 * width, y, text, shade, at="middle", bold=True)


def page_height(panels: Sequence[float]) -> float:
    """Return the height of a figure in points from those of its panels."""
    return sum(panels) + (HEAD + FOOT) * len(panels) + _UNDER


class Page:
    """A figure that panels of the given heights are added to from the top down."""

    def __init__(self, heights: Sequence[float]) -> None:
        self.height = page_height(heights)
        self.shapes: list[Shape] = []
        self.panels: list[Panel] = []
        self._top = 0.0

    def words(
        self, x: float, y: float, text: str, shade: str = INK, size: float = SIZE,
        side: Side = "start", at: Place = "base", bold: bool = False, framed: bool = False,
    ) -> None:  # fmt: skip
        """Write a text whose baseline, middle or top lies at a point of the page."""
        lower = y + {"base": 0.0, "middle": 0.36, "top": 0.78}[at] * size
        self.shapes.append(Words(x, lower, text, shade, size, side, bold, framed))

    def panel(
        self, height: float, head: str, x: tuple[float, float], y: tuple[float, float],
        vertical: bool = True, horizontal: bool = True, log: bool = False,
    ) -> Panel:  # fmt: skip
        """Add axes of this height under a heading; without its axis a direction has no ticks."""
        self._top += HEAD
        left, right = (LEFT, RIGHT) if vertical else (8.0, 8.0)
        width = WIDTH - left - right
        made = Panel(self, (left, self._top, width, height), x, y, log)
        self.panels.append(made)
        self.words(1.0, self._top - 7, drawable(head), bold=True)
        self._top += height
        if vertical:
            self._grid(made)
        if horizontal:
            self._axis(made)
        self._top += FOOT
        return made

    def _grid(self, panel: Panel) -> None:
        """Draw a line at every tick of the vertical axis, all as one."""
        left, _, width, _ = panel.box
        places = round_places(panel.y, 4)
        lines = [np.array([(left, at), (left + width, at)])
                 for _, at in panel.at(panel.x[0], places)]  # fmt: skip
        self.shapes.append(Stroke(lines, GRID, 0.6))
        for value, line in zip(places, lines, strict=True):
            at = float(line[0, 1])
            self.words(left - 2, at, compact(value), side="end", at="middle")

    def _axis(self, panel: Panel) -> None:
        """Draw the horizontal axis with its ticks."""
        left, top, width, height = panel.box
        low = top + height
        panel.ticks = log_places(panel.x) if panel.log else round_places(panel.x, 6)
        places = [float(at) for at, _ in panel.at(panel.ticks, panel.y[0])]
        lines = [np.array([(left, low), (left + width, low)])]
        lines += [np.array([(at, low), (at, low + 2.5)]) for at in places]
        self.shapes.append(Stroke(lines, INK, 0.7, round=False))
        for value, at in zip(panel.ticks, places, strict=True):
            self.words(at, low + 4.5, compact(value), side="middle", at="top")

    def foot(self, text: str) -> None:
        """Name the horizontal axis under the last panel."""
        left, _, width, _ = self.panels[-1].box
        self.words(left + width / 2, self._top + _UNDER - 2.5, drawable(text), side="middle")

    def key(self, lines: Sequence[tuple[str, str, tuple[float, ...]]]) -> None:
        """Name lines (label, colour, dash pattern) below the foot of the last panel.

        The heights that the page was made with have `KEY` for each.
        """
        self._top += _UNDER
        for label, shade, pattern in lines:
            y = self._top + KEY / 2
            ends = np.array([(LEFT, y), (LEFT + 22, y)])
            self.shapes.append(Stroke([ends], shade, 1.8, pattern, round=not pattern))
            self.words(LEFT + 28, y, drawable(label), at="middle")
            self._top += KEY


def log_places(limits: tuple[float, float]) -> list[float]:
    """Return the decades within some limits; with few, twice and five times those, too.

    So short an axis that it has fewer than three of these is nearly linear, and so are its places.
    """
    low, high = limits
    for factors in ((1.0,), (1.0, 2.0, 5.0)):
        powers = range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
        slack = 1e-9 * low
        every = (float(f"{k * 10.0**p:.6g}") for p in powers for k in factors)
        places = [v for v in every if low - slack <= v <= high * (1 + 1e-9)]
        if len(places) >= 3:
            return places
    return round_places(limits, 6)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return sorted places moved as little as possible to lie at least `gap` apart in 0..1.

    Neighbours that are too near become one block around their mean; blocks that then meet merge.
    """
    blocks: list[tuple[float, int]] = []  # (centre, members)
    for place in places:
        centre, size = place, 1
        while True:
            half = gap * (size - 1) / 2
            centre = min(max(centre, half), max(1 - half, half))
            if not blocks or blocks[-1][0] + gap * (blocks[-1][1] - 1) / 2 + gap <= centre - half:
                break
            before, count = blocks.pop()
            centre = (centre * size + before * count) / (size + count)
            size += count
        blocks.append((centre, size))
    return [centre + gap * (i - (size - 1) / 2) for centre, size in blocks for i in range(size)]


def panel_height(lines: int, least: float) -> float:
    """Return the height of a panel that fits the letters of all its lines."""
    return max(least, LETTER * (lines - 1))
