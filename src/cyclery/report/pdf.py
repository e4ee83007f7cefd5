"""Write figures as PDF, drawn by matplotlib, for other documents to include."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from io import BytesIO
from multiprocessing import get_context
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox, Transform, TransformedBbox

from cyclery.report.chart import WIDTH, Page
from cyclery.report.shapes import Area, Points, Shape, Words

_FONT = "DejaVu Sans"
_RC: Any = {"font.family": _FONT, "text.parse_math": False, "pdf.fonttype": 3,
            "pdf.compression": 6}  # fmt: skip
_SIDES: dict[str, Literal["left", "center", "right"]] = {
    "start": "left",
    "middle": "center",
    "end": "right",
}
# So many are drawn in processes of their own, which take a second to start.
_MANY = 40


def pictures(pages: Sequence[Page]) -> Iterator[bytes]:
    """Yield each page as a PDF file; the same page gives the same bytes."""
    workers = min(os.cpu_count() or 1, 4)
    if workers == 1 or len(pages) < _MANY:
        yield from map(picture, pages)
        return
    # A fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(picture, pages, chunksize=16)


def picture(page: Page) -> bytes:
    """Return a page as a PDF file of `WIDTH` points."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(WIDTH / 72, page.height / 72), dpi=72)
        figure.patch.set_visible(False)
        # Shapes are seen from the upper left corner, artists from the lower one.
        place = Affine2D().scale(1, -1).translate(0, page.height)
        for shape in page.shapes:
            figure.add_artist(_artist(shape, place))
        out = BytesIO()
        # Without the time and the version of the library.
        made = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(figure).print_pdf(out, metadata=made)
        return out.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    """Return the code points that the figures' font can draw."""
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _artist(shape: Shape, place: Transform) -> Artist:
    if isinstance(shape, Words):
        # A box for every character that the font lacks.
        text = "".join(c if ord(c) in _glyphs() else "\u25a1" for c in shape.text)
        return Text(
            shape.x, shape.y, text, color=shape.colour, fontsize=shape.size,
            fontweight="bold" if shape.bold else "normal", transform=place,
            horizontalalignment=_SIDES[shape.side], verticalalignment="baseline",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8} if shape.framed else None,
        )  # fmt: skip
    patch: PathPatch
    if isinstance(shape, Area):
        patch = PathPatch(_path([shape.line]), facecolor=shape.colour, edgecolor="none",
                          linewidth=0, alpha=shape.opacity, transform=place)  # fmt: skip
    else:
        ends = "round" if shape.round else "butt"
        patch = PathPatch(
            _path(shape.lines), fill=False, edgecolor=shape.colour, linewidth=shape.width,
            linestyle=(0, tuple(part / shape.width for part in shape.dash)) if shape.dash else "-",
            alpha=shape.opacity, capstyle=ends, joinstyle="round" if shape.round else "miter",
            transform=place,
        )  # fmt: skip
    if shape.box is not None:
        left, top, width, height = shape.box
        box = Bbox([[left, top], [left + width, top + height]])
        patch.set_clip_box(TransformedBbox(box, place))
    return patch


def _path(lines: Sequence[Points]) -> Path:
    """Return lines as one path; a dot is a line of no length."""
    found = [line if len(line) > 1 else np.repeat(line, 2, axis=0) for line in lines]
    codes = [code for line in found for code in (Path.MOVETO, *[Path.LINETO] * (len(line) - 1))]
    return Path(np.concatenate(found), codes)
