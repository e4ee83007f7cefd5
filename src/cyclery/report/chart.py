"""Shared style of all figures: size, palette, ticks, line labels.

One unit is one point; a figure is 300 wide, so that it reads at full size on a phone and three
stand side by side on a desktop. Arms carry a letter and a colour of `PALETTE`, the same in tables
and figures. Panels are placed by hand, because layout engines cost more than drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cyclery.report.model import compact

# Okabe-Ito without its yellow, which cannot be read on white, and with a grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
GRID = "#D0D3D8"
PALE = 0.16  # opacity of bands
INK = "#000000"
WIDTH, LEFT, RIGHT = 300.0, 34.0, 30.0
LETTER = 8.5  # height of a letter at the end of a line
KEY = 12.0  # height of a line's name below a panel
HEAD, FOOT = 18.0, 16.0  # over a panel for its heading, under it for its ticks
_RC: Any = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "text.parse_math": False, "axes.linewidth": 0.7,
    "svg.fonttype": "none", "svg.hashsalt": "cyclery", "pdf.fonttype": 3, "path.simplify": True,
    "pdf.compression": 6, "lines.solid_capstyle": "round", "lines.solid_joinstyle": "round",
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A figure with its text alternative.

    It is drawn when its figure is first asked for, which for many is in a process of their own: so
    ``draw``, which adds the panels to an empty page, is a partial that can be pickled.
    """

    slug: str
    title: str
    description: str
    panels: Sequence[float]  # heights in points, from the top down
    draw: Callable[[Page], None]
    data: list[list[Any]] = field(default_factory=list)  # rows of a CSV, the header first

    @property
    def height(self) -> float:
        """Return the height of the figure in points."""
        return page_height(self.panels)

    @cached_property
    def figure(self) -> Figure:
        """Return the figure; ask for it inside of `style`."""
        page = Page(self.panels)
        self.draw(page)
        return page.figure


@contextmanager
def style() -> Iterator[None]:
    """Set style and determinism of every figure drawn or saved inside."""
    with matplotlib.rc_context(_RC):
        yield


@cache
def _glyphs() -> frozenset[int]:
    """Return the code points that the figures' font can draw."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def drawable(text: str, limit: int = 60) -> str:
    """Return a text cut to `limit`, with a box for every character the font lacks."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= limit else flat[: limit - 1] + "\u2026"
    return "".join(c if ord(c) in _glyphs() else "\u25a1" for c in flat)


def colour(index: int) -> str:
    """Return the colour of the arm at this position."""
    return PALETTE[index % len(PALETTE)]


def dash(index: int) -> Any:
    """Return the dash pattern of the arm at this position: solid until colours repeat."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def floats(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers as float64, null as NaN (matplotlib leaves a gap there)."""
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


def band(
    ax: Axes, x: np.ndarray[Any, Any], low: np.ndarray[Any, Any], high: np.ndarray[Any, Any],
    shade: str,
) -> None:  # fmt: skip
    """Fill between two lines where both are finite, as one path."""
    some = np.isfinite(low) & np.isfinite(high)
    if some.any():
        across = np.concatenate([x[some], x[some][::-1]])
        along = np.concatenate([low[some], high[some][::-1]])
        ax.fill(across, along, color=shade, alpha=PALE, linewidth=0)


def page_height(panels: Sequence[float]) -> float:
    """Return the height of a figure in points from those of its panels."""
    return sum(panels) + (HEAD + FOOT) * len(panels) + 9.0


class Page:
    """A figure that panels of the given heights are added to from the top down."""

    def __init__(self, heights: Sequence[float]) -> None:
        self.height = self._top = page_height(heights)
        self.figure = Figure(figsize=(WIDTH / 72, self.height / 72), dpi=72)
        self.figure.patch.set_visible(False)

    def panel(
        self, height: float, head: str, x: tuple[float, float], y: tuple[float, float] | None
    ) -> Axes:
        """Add axes of this height under a heading; `y` None leaves the vertical axis out."""
        self._top -= HEAD
        left = LEFT if y else 8.0
        width = WIDTH - left - (RIGHT if y else 8.0)
        box = (left / WIDTH, (self._top - height) / self.height, width / WIDTH)
        ax = self.figure.add_axes((*box, height / self.height))
        self.figure.text(
            1 / WIDTH, (self._top + 7) / self.height, drawable(head), fontweight="bold"
        )
        self._top -= height + FOOT
        ax.patch.set_visible(False)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set(xlim=x, ylim=y or (0, 1))
        ax.tick_params(length=0, pad=4.5)
        ax.tick_params(axis="y", pad=2)
        ax.set_axisbelow(True)
        set_ticks(ax, "x", x)
        set_ticks(ax, "y", y)
        if y:
            _lines(ax)
        return ax

    def foot(self, ax: Axes, text: str) -> None:
        """Name the horizontal axis under the last panel."""
        ax.set_xlabel(text, labelpad=1)

    def key(self, lines: Sequence[tuple[str, str, Any]]) -> None:
        """Name lines (label, colour, dash pattern) below the foot of the last panel.

        The heights that the page was made with have `KEY` for each.
        """
        self._top -= 9.0
        for label, shade, pattern in lines:
            y = (self._top - KEY / 2) / self.height
            ends = [LEFT / WIDTH, (LEFT + 22) / WIDTH]
            self.figure.add_artist(
                Line2D(ends, [y, y], color=shade, linestyle=pattern, linewidth=1.8)
            )
            self.figure.text((LEFT + 28) / WIDTH, y, drawable(label), va="center_baseline")
            self._top -= KEY


def set_ticks(ax: Axes, axis: str, limits: tuple[float, float] | None) -> None:
    """Put a few round ticks within the limits, or none."""
    places: list[float] = []
    if limits:
        found = MaxNLocator(nbins=4 if axis == "y" else 6, steps=[1, 2, 2.5, 5, 10])
        slack = 1e-9 * (limits[1] - limits[0])
        places = [
            float(v)
            for v in found.tick_values(*limits)
            if limits[0] - slack <= v <= limits[1] + slack
        ]
    labels = [compact(round(v, 12)) for v in places]
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, labels)
    if axis == "x":
        _marks(ax, places)


def _marks(ax: Axes, places: Sequence[float]) -> None:
    """Draw the ticks of the horizontal axis as one line: matplotlib's are an element each."""
    for line in [one for one in ax.lines if one.get_gid() == "ticks"]:
        line.remove()
    length = 2.5 / ax.bbox.height  # a figure has 72 dots an inch: points
    across, along = apart([[v, v] for v in places], [[0.0, -length]] * len(places))
    ax.plot(
        across, along, color=INK, linewidth=0.7, clip_on=False, solid_capstyle="butt", gid="ticks",
        transform=ax.get_xaxis_transform(), scalex=False, scaley=False,
    )  # fmt: skip


def _lines(ax: Axes) -> None:
    """Draw a line at every tick of the vertical axis, all as one."""
    places = [float(v) for v in ax.get_yticks()]
    across, along = apart([[0.0, 1.0]] * len(places), [[v, v] for v in places])
    ax.plot(
        across, along, color=GRID, linewidth=0.6, clip_on=False, zorder=0.5,
        transform=ax.get_yaxis_transform(), scalex=False, scaley=False,
    )  # fmt: skip


def apart(
    across: Sequence[Sequence[float]], along: Sequence[Sequence[float]]
) -> tuple[list[float], list[float]]:
    """Return lines end to end with a gap after each, to be drawn as one."""
    return tuple([v for line in lines for v in (*line, np.nan)] for lines in (across, along))  # type: ignore[return-value]


def log_ticks(ax: Axes, limits: tuple[float, float], fine: bool = False) -> None:
    """Make the horizontal axis logarithmic with a tick at every decade inside.

    `fine` adds ticks at twice and five times each decade where there are fewer than three.
    """
    ax.set_xscale("log")
    ax.set_xlim(*limits)
    first, last = np.ceil(np.log10(limits[0]) - 1e-9), np.floor(np.log10(limits[1]) + 1e-9)
    places = [10.0**p for p in np.arange(first, last + 1)]
    if fine and len(places) < 3:
        every = [k * 10.0**p for p in np.arange(first - 1, last + 1) for k in (1, 2, 5)]
        places = [v for v in every if limits[0] <= v <= limits[1]]
    ax.set_xticks(places, [compact(v) for v in places])
    ax.minorticks_off()
    _marks(ax, places)


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


def end_labels(ax: Axes, height: float, labels: list[tuple[float, str, str]]) -> None:
    """Write (value, text, colour) at the right ends of lines in a panel of this height."""
    low, high = ax.get_ylim()
    found = sorted(((v - low) / (high - low), t, c) for v, t, c in labels if np.isfinite(v))
    places = spread([min(max(p, 0.0), 1.0) for p, _, _ in found], LETTER / height)
    for place, (_, text, shade) in zip(places, found, strict=True):
        ax.text(
            1.015, place, text, color=shade, transform=ax.transAxes, va="center_baseline",
            fontweight="bold",
        )  # fmt: skip
