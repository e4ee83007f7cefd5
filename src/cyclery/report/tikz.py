r"""Write a figure as a TikZ picture, which other documents `\input` with their own letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cyclery.report.chart import WIDTH, Chart
from cyclery.report.shapes import Area, Box, Points, Shape, Words
from cyclery.report.tex import comment, escape

_SIDES = {"start": "base west", "middle": "base", "end": "base east"}


def picture(chart: Chart) -> str:
    """Return the source of a figure: `WIDTH` big points wide, its colours its own."""
    shapes = chart.page.shapes
    shades = {shade: f"cyclery{i}" for i, shade in enumerate(dict.fromkeys(
        shape.colour for shape in shapes))}  # fmt: skip
    lines = [
        f"% {comment(chart.title)}. Needs tikz; {WIDTH:g} bp wide: scale it with",
        "% \\resizebox{\\linewidth}{!}{\\input{...}}.",
        "\\begin{tikzpicture}[x=1bp,y=-1bp,inner sep=0,every node/.style={inner sep=0}]",
        *(f"\\definecolor{{{name}}}{{HTML}}{{{shade[1:]}}}" for shade, name in shades.items()),
        f"\\useasboundingbox (0,0) rectangle ({WIDTH:g},{chart.page.height:g});",
        *_all(shapes, shades),
        "\\end{tikzpicture}%",
    ]
    return "\n".join(lines) + "\n"


def _all(found: Iterable[Shape], shades: dict[str, str]) -> Iterable[str]:
    """Yield every shape; neighbours in one box share the scope that cuts."""
    now: Box | None = None
    for shape in found:
        box = None if isinstance(shape, Words) else shape.box
        if box != now:
            if now:
                yield "\\end{scope}"
            if box:
                left, top, width, height = box
                ends = f"({left:g},{top:g}) rectangle ({left + width:g},{top + height:g})"
                yield f"\\begin{{scope}}\\clip {ends};"
            now = box
        yield _one(shape, shades[shape.colour])
    if now:
        yield "\\end{scope}"


def _one(shape: Shape, shade: str) -> str:
    if isinstance(shape, Words):
        style = [f"anchor={_SIDES[shape.side]}", f"text={shade}"]
        style += ["fill=white"] if shape.framed else []
        font = f"\\fontsize{{{shape.size:g}}}{{{shape.size:g}}}\\selectfont"
        font += "\\bfseries" if shape.bold else ""
        where = f"({shape.x:.1f},{shape.y:.1f})"
        return f"\\node[{','.join(style)}] at {where} {{{font} {escape(shape.text)}}};"
    faint = [f"opacity={shape.opacity:g}"] if shape.opacity < 1 else []
    if isinstance(shape, Area):
        return f"\\fill[{','.join([shade, *faint])}] {_path([shape.line])}--cycle;"
    style = [shade, f"line width={shape.width:g}bp", *faint]
    style += ["line cap=round,line join=round"] if shape.round else []
    if shape.dash:
        pairs = zip(shape.dash[::2], shape.dash[1::2], strict=True)
        words = " ".join(f"on {on:g}bp off {off:g}bp" for on, off in pairs)
        style.append(f"dash pattern={words}")
    return f"\\draw[{','.join(style)}] {_path(shape.lines)};"


def _path(lines: Sequence[Points]) -> str:
    """Return lines as places joined, to tenths of a point; a dot goes nowhere."""
    out = []
    for line in lines:
        places = np.rint(10 * line).astype(np.int64)
        moved = np.asarray(np.diff(places, axis=0, prepend=places[:1]).any(axis=1))
        moved[0] = True
        texts = [f"({x / 10:g},{y / 10:g})" for x, y in places[moved].tolist()]
        out.append("--".join(texts if len(texts) > 1 else texts * 2))
    return " ".join(out)
