"""Write a page of shapes as SVG: inline with the report's colours, or as a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape

import numpy as np
from markupsafe import Markup

from cyclery.report.chart import GRID, PALE, PALETTE, WIDTH, Chart, Page
from cyclery.report.shapes import INK, PAPER, SIZE, Area, Box, Points, Shape, Stroke, Words

Look = dict[str, str]
# Bands are pale and without an edge: whole points do, which takes half of the room.
_COARSE = 10
_FONT = "font: 8.5px 'DejaVu Sans', Verdana, sans-serif"
# Letters need more contrast than lines.
_LINES = {shade: f"var(--s{i})" for i, shade in enumerate(PALETTE)}
_LETTERS = {shade: f"var(--t{i})" for i, shade in enumerate(PALETTE)}
_COMMON = {GRID: "var(--grid)", INK: "currentColor", PAPER: "var(--page)"}


class Sheet:
    """The styles that the figures of one page share, as classes.

    A style repeated on every element would be half of the page, and style attributes are what a
    strict content policy forbids. Names start with an underscore, which no slug has.
    """

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    def style(self, text: str) -> str:
        """Return the class that stands for a style."""
        return self._classes.setdefault(text, f"_{len(self._classes)}")

    def css(self) -> Markup:
        """Return the rules of all classes given so far."""
        return Markup("\n".join(f".figure .{k}{{{v}}}" for v, k in self._classes.items()))


class _Writer:
    """Writes shapes: looks as classes of a sheet, or without one as attributes."""

    def __init__(self, sheet: Sheet | None) -> None:
        self.sheet = sheet

    def look(self, look: Look, letters: bool = False) -> str:
        """Return what an element needs for its look."""
        if self.sheet is None:
            return "".join(f' {name}="{value}"' for name, value in look.items())
        shades = _COMMON | (_LETTERS if letters else _LINES)
        text = ";".join(f"{name}:{shades.get(value, value)}" for name, value in look.items())
        return f' class="{self.sheet.style(text)}"' if text else ""

    def stroke(self, shape: Stroke, corner: tuple[float, float]) -> str:
        """Return lines as one path."""
        look = {"fill": "none", "stroke": shape.colour, "stroke-width": f"{shape.width:g}"}
        if shape.dash:
            look["stroke-dasharray"] = " ".join(f"{part:g}" for part in shape.dash)
        if shape.round:
            look |= {"stroke-linecap": "round", "stroke-linejoin": "round"}
        if shape.opacity < 1:
            look["opacity"] = f"{shape.opacity:g}"
        return f'<path{self.look(look)} d="{path(shape.lines, corner)}"/>'

    def area(self, shape: Area, corner: tuple[float, float]) -> str:
        """Return a polygon."""
        look = {"fill": shape.colour}
        if shape.opacity < 1:
            look["opacity"] = f"{shape.opacity:g}"
        grain = _COARSE if shape.opacity == PALE else 1
        return f'<path{self.look(look)} d="{path([shape.line], corner, grain)}z"/>'

    def words(self, shape: Words) -> str:
        """Return a text; a frame is a wide edge under its letters."""
        look = {"fill": shape.colour} if shape.colour != INK else {}
        if shape.colour == PAPER:  # on a colour that both themes have
            look["fill"] = "white"
        look |= {"font-size": f"{shape.size:g}px"} if shape.size != SIZE else {}
        look |= {"text-anchor": shape.side} if shape.side != "start" else {}
        look |= {"font-weight": "bold"} if shape.bold else {}
        if shape.framed:
            look |= {"paint-order": "stroke", "stroke": PAPER, "stroke-width": "2.5"}
        place = f'x="{_tenths(round(10 * shape.x))}" y="{_tenths(round(10 * shape.y))}"'
        return f"<text{self.look(look, letters=True)} {place}>{escape(shape.text, False)}</text>"

    def shapes(self, found: Iterable[Shape]) -> str:
        """Return shapes one after the other; neighbours in one box share the element that cuts."""
        out: list[str] = []
        now: Box | None = None
        for shape in found:
            box = None if isinstance(shape, Words) else shape.box
            if box != now:
                out += ["</svg>"] if now else []
                out += [_cutting(box)] if box else []
                now = box
            corner = (box[0], box[1]) if box else (0.0, 0.0)
            if isinstance(shape, Words):
                out.append(self.words(shape))
            elif isinstance(shape, Stroke):
                out.append(self.stroke(shape, corner))
            else:
                out.append(self.area(shape, corner))
        return "".join([*out, "</svg>" if now else ""])


def _cutting(box: Box) -> str:
    """Return the start of an inner SVG, which shows nothing beyond its edges."""
    left, top, width, height = (_tenths(round(10 * v)) for v in box)
    return f'<svg x="{left}" y="{top}" width="{width}" height="{height}">'


@cache
def _tenths(count: int) -> str:
    """Return tenths as the shortest number that SVG reads."""
    return f"{count / 10:g}".replace("0.", ".", 1) if abs(count) < 10 else f"{count / 10:g}"


def path(lines: Sequence[Points], corner: tuple[float, float] = (0.0, 0.0), grain: int = 1) -> str:
    """Return lines as a path of steps from point to point, seen from a corner.

    Places are rounded to `grain` tenths of a point, so errors do not add up; steps take a third
    less room than places.
    """
    out: list[str] = []
    last = np.zeros((1, 2), dtype=np.int64)
    for line in lines:
        places = grain * np.rint(10 * (line - corner) / grain).astype(np.int64)
        steps = np.diff(places, axis=0, prepend=last)
        moved = np.asarray(steps.any(axis=1))
        moved[0] = True
        steps, last = steps[moved], places[-1:]
        out.append("m")
        for place, step in enumerate(steps.ravel().tolist()):
            text = _tenths(step)
            out.append(text if not place or text[0] == "-" else f" {text}")
        if len(steps) == 1:
            out.append("h0")
    return "".join(out)


def inline(chart: Chart, sheet: Sheet) -> Markup:
    """Return a figure as an SVG element for the page that has this sheet.

    Black becomes the text colour and the palette becomes the page's variables, so one drawing
    serves light and dark. The caption under the figure is its description: it has the slug and
    `-d` as its id.
    """
    body = _Writer(sheet).shapes(chart.page.shapes)
    return Markup(
        f'<svg class="figure" viewBox="0 0 {WIDTH:g} {chart.page.height:g}" role="img" '
        f'aria-labelledby="{chart.slug}-t" aria-describedby="{chart.slug}-d">'
        f'<title id="{chart.slug}-t">{escape(chart.title)}</title>{body}</svg>'
    )


def alone(page: Page) -> bytes:
    """Return a page as an SVG file on white."""
    size = f'width="{WIDTH:g}" height="{page.height:g}" viewBox="0 0 {WIDTH:g} {page.height:g}"'
    body = _Writer(None).shapes(page.shapes).replace("><", ">\n<")
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{_FONT}">\n'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )
    return text.encode("utf-8")
