"""Write the stored figures into docs/benchmark.md, with their plot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cyclery.bench import results
from cyclery.bench.cases import EAGER_BF16, LOOP
from cyclery.bench.goals import FIRST_STEP, GOALS, STEADY_STATE, goals
from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.formatting import between
from cyclery.report import svg
from cyclery.report.chart import Page, colour, drawable, span
from cyclery.report.shapes import INK

Json = dict[str, Any]
PAGE, PLOT = Path("docs/benchmark.md"), Path("docs/benchmark.svg")
BEGIN, END = "<!-- measured: written by `cyclery bench --docs` -->", "<!-- end of measured -->"
AWAITED = (
    "**No figures from a GPU are stored here yet**: everything below is from a CPU, and the goals "
    "for a GPU await one."
)
_ROW, _LEGEND = 27.0, 11.0  # heights of a row of the plot, and of one of its legend
_MARK = 4.2
_BESIDE = re.compile(r"(?: x |pack of |engine, )(\d+)")  # of a variant's name
# A colour for each width, a shape for each way of training.
_WIDTHS = (1, 2, 4, 8, 16)


def write(root: Path, folder: Path) -> None:
    """Put the figures stored in ``folder`` into the page and its plot."""
    found = stored(folder)
    page = root / PAGE
    write_atomic(page, filled(page.read_text(encoding="utf-8"), found))
    write_atomic(root / PLOT, plot(found))


def stored(folder: Path) -> list[Json]:
    """Return all stored figures, those of GPUs first."""
    found = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise UserError(f"{folder}: no figures are stored; run `cyclery bench` first.")
    return sorted(found, key=lambda one: one["kind"] != "cuda")


def filled(text: str, found: list[Json]) -> str:
    """Return the page with the figures between its two marks."""
    return between(text, BEGIN, END, section(found), PAGE)


def section(found: list[Json]) -> str:
    """Return the figures as Markdown."""
    parts = [] if found[0]["kind"] == "cuda" else [AWAITED]
    for one in found:
        parts += [f"### {one['device']}", f"{results.heading(one)}."]
        if one["rows"]:
            rows = [
                ("" if i else row["title"], *cells)
                for row in one["rows"]
                for i, cells in enumerate(results.cells(row))
            ]
            parts.append(_table("", ("", *results.HEAD), rows, left=2))
        if one[FIRST_STEP]:
            shown = results.first_step_cells(one[FIRST_STEP])
            title = f"from process start to first trained step, {one[FIRST_STEP]['title']}"
            parts.append(_table(title, results.FIRST_STEP_HEAD, shown))
        if one[STEADY_STATE]:
            shown = results.steady_state_cells(one[STEADY_STATE])
            parts.append(_table("between two ends of an epoch", results.STEADY_HEAD, shown))
        for kind in ("left_out", "failed"):
            words = kind.replace("_", " ")
            parts += [f"`{row}` {words}: {why}." for row, why in one[kind].items()]
    parts += ["### Goals", *(_goals(one) for one in found)]
    return "\n\n".join(parts) + "\n"


def _goals(one: Json) -> str:
    judged = results.goal_cells(goals(one))
    return _table(one["device"], results.GOAL_HEAD, judged, left=4)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table without the columns that are empty; the first is titled."""
    head, every = (title, *head[1:]), list(rows)
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in every)]
    marks = ["---" if i < left else "---:" for i in kept]
    lines = [[head[i] for i in kept], marks, *([row[i] for i in kept] for row in every)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(found: list[Json]) -> bytes:
    """Return the ratios to the loop in fp32 as an SVG: a panel a device, a line a row."""
    names = list(dict.fromkeys(name for one in found for name, _ in _points(one["rows"])))
    page = Page([_LEGEND * -(-len(names) // 2), *(_ROW * len(one["rows"]) for one in found)])
    _legend(page, names)
    for one in found:
        _panel(page, one)
    return svg.alone(page)


def _points(rows: list[Json]) -> list[tuple[str, Json]]:
    """Return each variant but the loop itself with its figures."""
    return [
        (name, variant)
        for row in rows
        for name, variant in row["variants"].items()
        if LOOP.name in variant["ratio_to"]
    ]


def _marker(name: str) -> tuple[str, str]:
    """Return the shape and the colour of a variant's marks."""
    shape, shade = "dot", colour(_WIDTHS.index(_width(name)))
    if name.startswith("loop"):
        shape, shade = "cross", colour(6)
    elif name.startswith("compiled"):
        shape = "diamond"
    elif name.startswith("engine eager"):
        shape, shade = ("down", colour(5)) if name == EAGER_BF16.name else ("dot", INK)
    elif name.startswith("engine, "):
        shape = "square"
    elif name.startswith("pack"):
        shape = "up"
    return shape, shade


def _width(name: str) -> int:
    """Return how many runs a variant trains side by side."""
    found = _BESIDE.search(name)
    return int(found[1]) if found else 1


def _legend(page: Page, names: list[str]) -> None:
    lines = -(-len(names) // 2)
    head = "speed as a multiple of the loop's in fp32"
    ax = page.panel(_LEGEND * lines, head, (0, 1), (lines, 0), vertical=False, horizontal=False)
    for index, name in enumerate(names):
        left, row = 0.5 * (index // lines), index % lines
        ax.mark(left + 0.02, row + 0.5, *_marker(name), _MARK)
        ax.words(left + 0.05, row + 0.5, drawable(name), at="middle")


def _panel(page: Page, one: Json) -> None:
    rows = one["rows"]
    aims = [goal for goal in GOALS if goal.kind == one["kind"]]
    shown = [v["ratio_to"][LOOP.name] for _, v in _points(rows)]
    values = [1.0, *(spread[key] for spread in shown for key in ("low", "high"))]
    values += [goal.ratio for goal in aims if any(row["row"] in goal.rows for row in rows)]
    wide = max(values) / min(values) > 4
    limits = (min(values) / 1.2, max(values) * 1.2) if wide else span(values)
    height, y = _ROW * len(rows), (len(rows), 0)
    ax = page.panel(height, one["device"], limits, y, vertical=False, log=wide)
    for place, row in enumerate(rows):
        ax.words(limits[0], place + 0.05, drawable(row["title"], 70), size=7.8, at="top")
        ax.line([1, 1], [place + 0.45, place + 0.9], INK, 0.8)
        for goal in (goal for goal in aims if row["row"] in goal.rows):
            _, shade = _marker(goal.variants[0].name)
            ax.mark(goal.ratio, place + 0.68, "bar", shade, 11)
        for name, variant in _points([row]):
            spread, (shape, shade) = variant["ratio_to"][LOOP.name], _marker(name)
            ax.line([spread["low"], spread["high"]], [place + 0.68] * 2, shade, 1.2)
            ax.mark(spread["median"], place + 0.68, shape, shade, _MARK)
