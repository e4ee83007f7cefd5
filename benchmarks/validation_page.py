"""The page docs/validation.md and its plot, made from the counts that validation.py stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from scipy import stats

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.formatting import between
from cyclery.report import svg
from cyclery.report.chart import Page, colour, drawable
from cyclery.report.shapes import INK

Json = dict[str, Any]
PAGE, PLOT = Path("docs/validation.md"), Path("docs/validation.svg")
COMMAND = "python benchmarks/validation.py"
BEGIN = f"<!-- measured: written by `{COMMAND} --docs` -->"
END = "<!-- end of measured -->"
DESIGNS = ("one look", "spent", "naive")
WORDS = {"one look": "one look", "spent": "looks after every 5", "naive": "naive looks"}
_ROW = 12.0  # height of a line of the plot


def write(root: Path, stored: Path) -> None:
    """Put the stored counts into the page and its plot."""
    found = read(stored)
    page = root / PAGE
    write_atomic(page, filled(page.read_text(encoding="utf-8"), found))
    write_atomic(root / PLOT, plot(found))


def read(stored: Path) -> Json:
    """Return the stored counts."""
    if not stored.is_file():
        raise UserError(f"{stored}: no counts are stored; run `{COMMAND}` first.")
    found: Json = json.loads(stored.read_bytes())
    return found


def dumps(found: Json) -> str:
    """Return counts as JSON with a cell a line."""
    parts = []
    for name, value in found.items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"  {json.dumps(one, allow_nan=False)}" for one in value)
            text += "\n ]"
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def filled(text: str, found: Json) -> str:
    """Return the page with the figures between its two marks."""
    return between(text, BEGIN, END, section(found), PAGE)


def mark(found: Json, runs: int) -> float:
    """Return the highest rate that passes: the level and three binomial standard errors."""
    alpha: float = found["alpha"]
    return alpha + 3 * sqrt(alpha * (1 - alpha) / runs)


def missed(found: Json) -> list[str]:
    """Return the cells whose false rate is above their mark."""
    return [
        f"{one['kind']}, {one['law']}, {WORDS[one['design']]}, {one['n']} seeds: {rate(one)}"
        for one in found["false"]
        if one["marked"] and one["count"] / one["runs"] > mark(found, one["runs"])
    ] + [
        f"papers of {one['size']} comparisons, {one['paper']}, {one['law']}, {one['n']} seeds, "
        f"{verdict}: {rate(one, verdict)}"
        for one in found["papers"]
        for verdict in ("reproduced", "contradicted")
        if one["what"] == "nulls" and one[verdict] / one["runs"] > mark(found, one["runs"])
    ]


def wilson(one: Json, count: str = "count", of: str = "runs") -> tuple[float, float]:
    """Return Wilson's 95 % interval of a cell's rate."""
    ci = stats.binomtest(one[count], one[of]).proportion_ci(0.95, method="wilson")
    return float(ci.low), float(ci.high)


def rate(one: Json, count: str = "count", of: str = "runs") -> str:
    """Return a cell's rate in percent with its interval: `2.51 (2.30-2.73)`."""
    low, high = wilson(one, count, of)
    return f"{100 * one[count] / one[of]:.2f} ({100 * low:.2f}\u2013{100 * high:.2f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    marks = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, marks, *rows])


def _pivot(cells: Sequence[Json], row: str, title: str) -> str:
    """Return rates as a table: a row for each value of ``row``, a column for each number."""
    columns = list(dict.fromkeys((one.get("design", ""), one["n"]) for one in cells))
    by_place = {(one[row], one.get("design", ""), one["n"]): rate(one) for one in cells}
    rows = [
        [name, *(by_place.get((name, *column), "") for column in columns)]
        for name in dict.fromkeys(one[row] for one in cells)
    ]
    heads = [f"n = {n}" if design in ("", "one look") else f"plan {n}" for design, n in columns]
    return table([title, *heads], rows)


def section(found: Json) -> str:
    """Return all figures as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    marked = [one for one in found["false"] if one["marked"]]
    above = missed({**found, "papers": []})
    worst = max(marked, key=lambda one: one["count"] / one["runs"])
    laws = list(dict.fromkeys(one["law"] for one in found["false"]))
    parts = [
        f"{found['runs']:,} simulated data sets a cell; {versions}; {found['made'][:10]}; "
        f"{found['seconds']:.0f} s of one core. Rates are in per cent with Wilson's 95 % interval.",
        f"**{len(marked) - len(above)} of {len(marked)} cells pass their mark of "
        f"{100 * mark(found, found['runs']):.2f} %**; the highest rate is {rate(worst)} "
        f"({worst['kind']}, {worst['law']}, {WORDS[worst['design']]}, {worst['n']} seeds)."
        + "".join(f"\n\nMissed: {text}." for text in above),
        "### False \u201creproduced\u201d",
    ]
    for law in laws:
        cells = [one for one in found["false"] if one["law"] == law]
        note = "" if any(one["marked"] for one in cells) else " (no pass mark)"
        parts.append(f"#### {law[:1].upper()}{law[1:]}{note}")
        for title, designs in (("one look", ("one look",)), ("looks after every 5", ("spent",)),
                               ("the same without spending", ("naive",))):  # fmt: skip
            some = [one for one in cells if one["design"] in designs]
            parts.append(_pivot(some, "kind", title))
    parts += ["### Whole papers", *_papers(found)]
    parts += ["### Power at planted effects", *_powers(found)]
    parts += ["### Coverage of 95 % intervals"]
    for law in laws:
        cells = [one for one in found["coverage"] if one["law"] == law]
        parts.append(_pivot(cells, "interval", law))
    return "\n\n".join(parts) + "\n"


def _papers(found: Json) -> Iterable[str]:
    """Yield the papers without a true effect, and what the correction costs where there are."""
    nulls = [one for one in found["papers"] if one["what"] == "nulls"]
    above = missed({**found, "false": []})
    yield (
        f"**{2 * len(nulls) - len(above)} of {2 * len(nulls)} rates pass their mark of "
        f"{100 * mark(found, found['runs']):.2f} %.** Papers without any true effect in which some "
        "comparison is decided, at any look:"
    ) + "".join(f"\n\nMissed: {text}." for text in above)
    heads = ["law", "comparisons", "seeds", "reproduced", "contradicted", "contradicted before"]
    names = heads[3:]
    yield table(
        ["tests", *heads],
        [[one["paper"], one["law"], str(one["size"]), str(one["n"]),
          *(rate(one, name) for name in names)] for one in nulls],
        left=2,
    )  # fmt: skip
    planted = [one for one in found["papers"] if one["what"] == "planted"]
    yield (
        "Planted effects of 1.5 s.d. that are found by the end of the plan, in a third of the "
        "comparisons in the claim's favour, in a third against it (normal arms):"
    )
    yield table(
        ["comparisons", "seeds", *names],
        [[str(one["size"]), str(one["n"]), rate(one, "reproduced", "for"),
          *(rate(one, name, "against") for name in names[1:])] for one in planted],
        left=0,
    )  # fmt: skip


def _powers(found: Json) -> Iterable[str]:
    """Yield a table per law: rates, the power stated, and the seeds that looks save."""
    for law in dict.fromkeys(one["law"] for one in found["power"]):
        rows = []
        for one in (one for one in found["power"] if one["law"] == law):
            stated = "" if one["stated"] is None else f"{100 * one['stated']:.1f}"
            seeds = f"{one['mean_seeds']:.1f}" if one["design"] == "spent" else ""
            rows.append([f"{one['kind']}, effect {one['effect']:g} s.d.", WORDS[one["design"]],
                         str(one["n"]), rate(one), stated, seeds])  # fmt: skip
        kept = ["n", "rate", "stated", "mean seeds"]
        yield f"#### {law[:1].upper()}{law[1:]}"
        before, shown = "", []
        for row in rows:
            shown.append([row[0] if row[0] != before else "", *row[1:]])
            before = row[0]
        yield table(["", "", *kept], shown, left=2)


def plot(found: Json) -> bytes:
    """Return the false rates as an SVG: a panel a design, a line a kind, a colour a law."""
    laws = list(dict.fromkeys(one["law"] for one in found["false"] if one["marked"]))
    kinds = list(dict.fromkeys(one["kind"] for one in found["false"]))
    panels = list(dict.fromkeys((one["design"], one["n"]) for one in found["false"]))
    panels = [p for p in panels if p in (("one look", 5), ("spent", 50), ("naive", 50))]
    panels = panels or sorted({(one["design"], one["n"]) for one in found["false"]})[:3]
    height = 2 * _ROW * len(kinds)
    page = Page([_ROW * len(laws), *[height] * len(panels)])
    head = "false \u201creproduced\u201d, in %"
    y = (len(laws), 0)
    ax = page.panel(_ROW * len(laws), head, (0, 1), y, vertical=False, horizontal=False)
    for i, law in enumerate(laws):
        ax.dots(0.02, i + 0.5, colour(i), 4.2)
        ax.words(0.05, i + 0.5, drawable(law), at="middle")
    for design, n in panels:
        cells = [one for one in found["false"] if one["law"] in laws
                 and (one["design"], one["n"]) == (design, n)]  # fmt: skip
        top = 1.1 * max(100 * wilson(one)[1] for one in cells)
        words = f"{WORDS[design]}, {n} seeds" + (" planned" if design != "one look" else "")
        ax = page.panel(height, words, (0, max(top, 6.0)), (len(kinds), 0), vertical=False)
        for place, kind in enumerate(kinds):
            most = 100 * mark(found, found["runs"])
            ax.line([most, most], [place + 0.5, place + 0.97], INK, 0.8)
            ax.words(0, place + 0.05, drawable(kind, 70), size=7.8, at="top")
            for i, law in enumerate(laws):
                for one in (c for c in cells if (c["kind"], c["law"]) == (kind, law)):
                    low, high = (100 * end for end in wilson(one))
                    at = place + 0.6 + 0.13 * i
                    ax.line((low, high), (at, at), colour(i), 1.2)
                    ax.dots(100 * one["count"] / one["runs"], at, colour(i), 3.2)
    return svg.alone(page)
