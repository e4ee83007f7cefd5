"""Convert a matplotlib figure to inline SVG: page colours, fonts, unique ids."""

from __future__ import annotations

import re
from html import escape
from io import BytesIO
from typing import Any

from markupsafe import Markup
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

from cyclery.report.chart import GRID, PALE, PALETTE, Chart, style

_LONG = re.compile(r"-?\d+\.\d{3,}|(?<= [xy]=\")-?\d+\.\d\d")
_NOISE = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_PATH = re.compile(r' d="([^"]*)"')
_LINES = re.compile(r"(?:[ML] ?-?[\d.]+ -?[\d.]+ ?)+z? ?")
_POINT = re.compile(r"([ML]) ?(-?[\d.]+) (-?[\d.]+)")
_NEIGHBOURS = re.compile(
    r'(<path [^>]*clip-path="url\(#([^)]+)\)"[^>]*/>)(<path [^>]*clip-path="url\(#\2\)"[^>]*/>)+'
)
# Bands are pale and without an edge: whole points do, which takes half of the room.
_PALE, COARSE = f"opacity: {PALE:g}", 10
_CLIP = re.compile(r'<clipPath id="([^"]+)">(.*?)</clipPath>')
_LABEL = re.compile(r'<text class="([^"]+)" x="([^"]+)" y="([^"]+)">([^<]*)</text>')
_LABELS = re.compile(
    r'<text class="([^"]+)" x="[^"]+" y="([^"]+)">[^<]*</text>'
    r'(?:<text class="\1" x="[^"]+" y="\2">[^<]*</text>)+'
)
_STYLE = re.compile(r' style="([^"]*)"')
# The page's style sheet sets these.
_FONT = re.compile(r"font-size: 8.5px; ?|font-family: '[^;\"]*; ?| transform=\"rotate\(-0 [^\"]*\"")
_COLOURS = {
    **{shade.lower(): f"var(--s{i})" for i, shade in enumerate(PALETTE)},
    GRID.lower(): "var(--grid)",
    "#000000": "currentColor",
}
_COLOUR = re.compile("|".join(_COLOURS), re.IGNORECASE)


def _short(match: re.Match[str]) -> str:
    """Round a coordinate to 1/10 point: half of the file is digits that nobody sees."""
    return f"{float(match[0]):.1f}".rstrip("0").rstrip(".")


def _relative(path: str, grain: int = 1) -> str:
    """Return a path of straight lines with each point as the step from the last.

    Places are rounded to `grain` tenths of a point, so errors do not add up; steps take a third
    less room. A line of no length is a dot. Other paths are returned as they are.
    """
    if not _LINES.fullmatch(path):
        return path
    out, x, y, last = "", 0, 0, ""
    for letter, across, along in _POINT.findall(path):
        now = tuple(grain * round(10 * float(v) / grain) for v in (across, along))
        step = _tenths(now[0] - x), _tenths(now[1] - y)
        if letter == "M" or step != ("0", "0") or last == "M":
            gap = "m" if letter == "M" else "" if step[0][0] == "-" else " "
            out += f"{gap}{step[0]}{'' if step[1][0] == '-' else ' '}{step[1]}"
        (x, y), last = now, letter
    return out + ("z" if path.rstrip()[-1:] in "zZ" else "")


def _tenths(count: int) -> str:
    """Return tenths as the shortest number that SVG reads."""
    return f"{count / 10:g}".replace("0.", ".", 1) if abs(count) < 10 else f"{count / 10:g}"


def _grouped(body: str) -> str:
    """Put neighbours that share a clip path into one group that has it."""

    def turn(match: re.Match[str]) -> str:
        clip = f' clip-path="url(#{match[2]})"'
        return (
            f"<g{clip}>{match[0].replace(clip, '')}</g>" if match[0].count(clip) > 2 else match[0]
        )

    return _NEIGHBOURS.sub(turn, body)


def _shared(body: str, sheet: Sheet) -> str:
    """Take the clip paths out of a figure: most are those of another figure, too."""
    ids: dict[str, str] = {}

    def turn(match: re.Match[str]) -> str:
        ids[match[1]] = sheet.clip(match[2])
        return ""

    body = _CLIP.sub(turn, body)
    return re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{ids.get(m[1], m[1])})", body)


def _rows(body: str) -> str:
    """Put labels that stand side by side in one element."""

    def turn(match: re.Match[str]) -> str:
        found = _LABEL.findall(match[0])
        spans = "".join(f'<tspan x="{x}">{words}</tspan>' for _, x, _, words in found)
        return f'<text class="{found[0][0]}" y="{found[0][2]}">{spans}</text>'

    return _LABELS.sub(turn, body)


def _flat(body: str) -> str:
    """Drop the groups that carry no attribute: matplotlib wraps every artist in several."""
    kept: list[bool] = []

    def turn(match: re.Match[str]) -> str:
        if match[0] == "</g>":
            return "</g>" if kept.pop() else ""
        if match[0].endswith("/>"):
            return ""
        kept.append(match[0] != "<g>")
        return match[0] if kept[-1] else ""

    return re.sub(r"<g(?: [^>]*)?/?>|</g>", turn, body)


def _print(canvas: Any, chart: Chart, out: BytesIO, metadata: dict[str, None]) -> None:
    """Draw a chart through one of matplotlib's canvases, whose printers carry no types."""
    printer = canvas(chart.figure)
    (printer.print_pdf if canvas is FigureCanvasPdf else printer.print_svg)(out, metadata=metadata)


def drawn(chart: Chart) -> tuple[str, bytes]:
    """Return matplotlib's SVG and a PDF of the figure, that depend on nothing but its content."""
    text, pdf = BytesIO(), BytesIO()
    with style():
        _print(FigureCanvasSVG, chart, text, {"Date": None})
        _print(FigureCanvasPdf, chart, pdf, {"CreationDate": None})
    return text.getvalue().decode("utf-8"), pdf.getvalue()


class Sheet:
    """What the figures of one page share: their styles as classes, and ids given only once.

    A style repeated on every element would be half of the page, and style attributes are what a
    strict content policy forbids. Names start with an underscore, which no slug has.
    """

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._clips: dict[str, str] = {}
        self._ids = 0

    def style(self, text: str) -> str:
        """Return the class that stands for a style attribute."""
        text = text.strip(" ;").replace(": ", ":").replace("; ", ";")
        return self._classes.setdefault(text, f"_{len(self._classes)}") if text else ""

    def ids(self, names: set[str]) -> dict[str, str]:
        """Return a new id for each name."""
        first, self._ids = self._ids, self._ids + len(names)
        return {name: f"_i{first + place}" for place, name in enumerate(sorted(names))}

    def clip(self, shape: str) -> str:
        """Return the id of the clip path with this shape."""
        return self._clips.setdefault(shape, f"_c{len(self._clips)}")

    def clips(self) -> Markup:
        """Return all clip paths given so far; the page holds them once."""
        made = (f'<clipPath id="{k}">{shape}</clipPath>' for shape, k in self._clips.items())
        return Markup("".join(made))

    def css(self) -> Markup:
        """Return the rules of all classes given so far."""
        return Markup("\n".join(f".figure .{k}{{{v}}}" for v, k in self._classes.items()))


def _tag(tag: str, sheet: Sheet, ids: dict[str, str]) -> str:
    """Return one tag with short coordinates, the page's colours and ids of its own."""
    tag = _LONG.sub(_short, tag)
    tag = _ID.sub(lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    tag = _REFERENCE.sub(lambda m: f"{m[1]}{ids[m[2]]}", tag).replace("xlink:href", "href")
    grain = COARSE if _PALE in tag else 1
    tag = _PATH.sub(lambda m: f' d="{_relative(m[1], grain)}"', tag)
    tag = _COLOUR.sub(lambda m: _COLOURS[m[0].lower()], _FONT.sub("", tag))
    if tag.startswith("<text"):  # letters need more contrast than lines
        tag = tag.replace("var(--s", "var(--t")
    return _STYLE.sub(lambda m: f' class="{name}"' if (name := sheet.style(m[1])) else "", tag)


def inline(chart: Chart, text: str, sheet: Sheet) -> Markup:
    """Return a figure, drawn as ``text``, as an SVG element for the page that has this sheet.

    Ids that nothing refers to go; the others become the page's, for two inline figures must not
    share one. Black becomes the text colour and the palette becomes the page's variables, so one
    drawing serves light and dark. Only tags are touched, never their text. The caption under the
    figure is its description: it has the slug and `-d` as its id.
    """
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    box = re.search(r'viewBox="([^"]+)"', text)
    body = _NOISE.sub("", body)
    ids = sheet.ids({name for _, name in _REFERENCE.findall(body)})
    body = re.sub(r"\s*\n\s*", " ", body)
    body = _TAG.sub(lambda m: _tag(m[0], sheet, ids), body)
    body = _shared(re.sub(r">\s+<", "><", _flat(body)), sheet).replace("<defs></defs>", "")
    body = _rows(_grouped(body.strip()))
    return Markup(
        f'<svg class="figure" viewBox="{box[1] if box else "0 0 300 200"}" role="img" '
        f'aria-labelledby="{chart.slug}-t" aria-describedby="{chart.slug}-d">'
        f'<title id="{chart.slug}-t">{escape(chart.title)}</title>{body}</svg>'
    )
