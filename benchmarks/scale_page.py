"""The page docs/scale.md and its plot, made from the figures that scale.py stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from validation_page import table

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.formatting import between
from cyclery.report import svg
from cyclery.report.chart import Page, colour, drawable
from cyclery.report.shapes import INK

Json = dict[str, Any]
PAGE, PLOT = Path("docs/scale.md"), Path("docs/scale.svg")
COMMAND = "python benchmarks/scale.py"
BEGIN = f"<!-- measured: written by `{COMMAND} --docs` -->"
END = "<!-- end of measured -->"
WHOLE = 3000
PLANNING_SECONDS, PLANNING_MB, EXECUTION_SECONDS, FILES, STATUS_SECONDS = 30, 400, 120, 50, 3


@dataclass(frozen=True)
class Goal:
    """What was asked, what was found and whether it held."""

    what: str
    goal: str
    found: str
    held: bool


def write(root: Path, stored: Path) -> None:
    """Put the stored figures into the page and its plot."""
    if not stored.is_file():
        raise UserError(f"{stored}: no figures are stored; run `{COMMAND}` first.")
    found: Json = json.loads(stored.read_bytes())
    page = root / PAGE
    write_atomic(page, filled(page.read_text(encoding="utf-8"), found))
    write_atomic(root / PLOT, plot(found))


def filled(text: str, found: Json) -> str:
    """Return the page with the figures between its two marks."""
    return between(text, BEGIN, END, section(found) + "\n", PAGE)


def goals(found: Json) -> Iterator[Goal]:
    """Yield every goal at 3,000 cells with what was measured, the worst where there are several."""
    plans = [one for one in found["planning"] if one["cells"] == WHOLE]
    seconds, peak = (max(one[name] for one in plans) for name in ("seconds", "peak_mb"))
    yield Goal("`snakemake -n`, worst", f"{PLANNING_SECONDS} s", f"{seconds:.1f} s",
               seconds <= PLANNING_SECONDS)  # fmt: skip
    yield Goal("its memory", f"{PLANNING_MB} MB", f"{peak:.0f} MB", peak <= PLANNING_MB)
    for one in (one for one in found["execution"] if one["cells"] == WHOLE):
        yield Goal(
            f"3,000 cells with nothing to train, {one['cells_per_job']} a job",
            f"{EXECUTION_SECONDS} s", f"{one['seconds']:.0f} s",
            one["seconds"] <= EXECUTION_SECONDS,
        )  # fmt: skip
    most = max(map(per_cell, found["execution"]))
    yield Goal("files per cell in `results/`, `.snakemake/` and `.cyclery/`", f"under {FILES}",
               f"{most:.1f}", most < FILES)  # fmt: skip
    slowest = max(one["seconds"] for one in found["commands"] if "status" in one["command"])
    yield Goal("`cyclery status`, 15,000 runs, worst", f"{STATUS_SECONDS} s", f"{slowest:.1f} s",
               slowest <= STATUS_SECONDS)  # fmt: skip


def per_cell(one: Json) -> float:
    """Return the files that a cell leaves."""
    files = sum(one[f"{name}_files"] for name in ("results", "snakemake", "cyclery"))
    return float(files / one["cells"])


def section(found: Json) -> str:
    """Return all figures as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    rows = [[one.what, one.goal, one.found, "held" if one.held else "**missed**"]
            for one in goals(found)]  # fmt: skip
    plans = [[f"{one['cells']:,}", str(one["cells_per_job"]), one["state"],
              f"{one['seconds']:.1f}", f"{one['peak_mb']:.0f}"]
             for one in found["planning"]]  # fmt: skip
    jobs = [[f"{one['cells']:,}", str(one["cells_per_job"]), f"{one['jobs']:,}",
             f"{one['seconds']:.0f}", f"{1000 * one['seconds'] / one['jobs']:.0f}",
             f"{per_cell(one):.1f}"] for one in found["execution"]]  # fmt: skip
    asked = [[f"`{one['command']}`", one["state"], f"{one['seconds']:.1f}"]
             for one in found["commands"]]  # fmt: skip
    single = max((one for one in found["execution"] if one["cells_per_job"] == 1),
                 key=lambda one: one["cells"])  # fmt: skip
    each = 1000 * single["seconds"] / single["jobs"]
    parts = [
        f"{found['device']}, {found['cores']} cores, load {found['load']:g} at the start; "
        f"{versions}; {found['made'][:10]}. Medians of 3 "
        "where a command took under 6 s, else measured once.",
        table(["", "goal", "found", ""], rows),
        f"**Jobs of a single cell**: {single['jobs']:,} of them took "
        f"{single['seconds']:.0f} s, {each:.0f} ms each, so 3,000 need "
        f"about {each * WHOLE / 60_000:.0f} minutes. A tier that trains one cell a job, as "
        "`paper` does, spends far longer on training each; only a repeat of everything is so slow.",
        "### Planning: `snakemake -n`",
        table(["cells", "cells a job", "state", "seconds", "MB"], plans, left=3),
        "### Executing jobs that have nothing to train",
        table(["cells", "cells a job", "jobs", "seconds", "ms a job", "files a cell"], jobs),
        "### Commands at 15,000 runs",
        table(["command", "runs", "seconds"], asked, left=2),
    ]
    return "\n\n".join(parts)


def plot(found: Json) -> bytes:
    """Return seconds over cells as an SVG: a panel for planning and one for executing."""
    panels = (
        ("planning", f"snakemake -n, s (goal {PLANNING_SECONDS})", PLANNING_SECONDS),
        ("execution", f"executing with nothing to train, s (goal {EXECUTION_SECONDS})",
         EXECUTION_SECONDS),
    )  # fmt: skip
    page = Page([90.0] * len(panels))
    for name, head, goal in panels:
        cells = [one["cells"] for one in found[name]]
        top = 1.15 * max(goal, *(one["seconds"] for one in found[name]))
        right = 1.15 * max(cells)
        ax = page.panel(90.0, head, (0, right), (0, top))
        ax.line((0, WHOLE), (goal, goal), INK, 0.8)
        ax.mark(WHOLE, goal, "bar", INK, 7)
        lines = dict.fromkeys((one["cells_per_job"], one.get("state")) for one in found[name])
        for i, line in enumerate(lines):
            some = sorted((one["cells"], one["seconds"]) for one in found[name]
                          if (one["cells_per_job"], one.get("state")) == line)  # fmt: skip
            x, y = zip(*some, strict=True)
            ax.line(x, y, colour(i), 1.2)
            ax.dots(x, y, colour(i), 3.2)
            words = f"{line[0]} a job" + (f", {line[1]}" if line[1] else "")
            where = (0.02 * right, (0.97 - 0.13 * i) * top)
            ax.words(*where, drawable(words), colour(i), size=7.8, at="top")
    return svg.alone(page)
