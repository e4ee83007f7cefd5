"""Benchmark tables as the page shows them, made up and deterministic, and a page of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from cyclery.report import download, svg
from cyclery.report.build import _page
from cyclery.report.view_types import BenchmarkView, GridCell, GridLine, Value
from factories.evidence import ARABIC, HOSTILE

MINUS = "\u2212"
ENDLESS = "w" * 120
LETTERS = "abcdefgh"
HEADS: dict[Value, str] = {"ours": "Ours", "printed": "Printed", "difference": "Difference"}
METHODS = [
    ["", "Supervised"], ["Consistency", "\u03a0-model"], ["Consistency", "Mean teacher"],
    ["Consistency", "MixMatch"], ["Pseudo-labels", "Pseudo-label"], ["Pseudo-labels", "UDA"],
    ["Pseudo-labels", "FixMatch, weak and strong augmentation"], ["", "Fully supervised"],
]  # fmt: skip


def line(
    *heads: str, value: Value | None = None, by: str | None = None, tier: str = ""
) -> GridLine:
    return {"heads": list(heads), "value": value, "by": by, "tier": tier}


def cell(
    text: str, number: float | None = None, spread: str = "", interval: str = "",
    bold: bool = False, note: str = "", title: str = "",
) -> GridCell:  # fmt: skip
    return {"text": text, "spread": spread, "interval": interval, "bold": bold, "note": note,
            "title": title, "number": number}  # fmt: skip


def figure(dice: random.Random, value: Value | None, low: float = 60.0) -> GridCell:
    """Return a cell of a kind, rounded by its spread as the report does."""
    mean, spread = dice.uniform(low, 97.0), dice.choice([0.041, 0.32, 0.85, 1.4])
    digits = 1 if spread >= 1 else 2 if spread >= 0.1 else 3
    if value == "difference":
        gap = dice.gauss(0.0, 1.0)
        return cell(f"{gap:+.2f}".replace("-", MINUS), gap, title="Ours less printed")
    if value == "ours":
        ends = f"[{mean - 1.2 * spread:.{digits}f}, {mean + 1.2 * spread:.{digits}f}]"
        return cell(f"{mean:.{digits}f}", mean, f"{spread:.{digits}f}", ends,
                    title=f"n = {dice.choice([5, 10])}, smoke tier")  # fmt: skip
    return cell(f"{mean:.{digits}f}", mean, f"{spread:.{digits}f}",
                title="5 runs, read in arXiv:2001.07685v2, Table 2")  # fmt: skip


def view(
    title: str, columns: list[GridLine], rows: list[GridLine], cells: list[list[GridCell]],
    slug: str = "", **rest: Any,
) -> BenchmarkView:  # fmt: skip
    slug = slug or title.lower().replace(", ", "-").replace(" ", "-")
    values = {one["value"] for one in (*columns, *rows)} - {None}
    heads = [", ".join(one["heads"]) for one in columns]
    data: list[list[Any]] = [["row", *heads]]
    data += [[", ".join(one["heads"]), *(c["number"] for c in found)]
             for one, found in zip(rows, cells, strict=True)]  # fmt: skip
    made: dict[str, Any] = {
        "slug": slug, "paper": title.partition(", ")[0], "title": title.partition(", ")[2],
        "caption": "Test accuracy in per cent.", "lines": [],
        "columns": columns, "rows": rows, "cells": cells,
        "values": [v for v in HEADS if v in values], "notes": [],
        "command": "make reproduce PAPER=fixmatch", "file": download.file(slug, data),
    }  # fmt: skip
    return {**made, **rest}  # type: ignore[typeddict-item]


def methods_down(seed: int = 0, title: str = "FixMatch, Table 2") -> BenchmarkView:
    """Return a table with methods in rows: what is printed, ours of two kinds, differences."""
    dice = random.Random(seed)
    columns = [line("CIFAR-10", "", f"{n} labels", value="printed") for n in (40, 250, 4000)]
    columns += [line("SVHN", "40 labels", "Printed", value="printed"),
                line("SVHN", "40 labels", "Ours", value="ours", tier="desk"),
                line("SVHN", "40 labels", "Difference", value="difference",
                     tier="desk")]  # fmt: skip
    columns += [line("", "", "STL-10", value="printed"),
                line("", "", "STL-10, RandAugment", value="printed", by="TorchSSL")]  # fmt: skip
    columns += [line("Ours, smoke tier", "", f"digits, {n} labels", value="ours", tier="smoke")
                for n in (40, 250)]  # fmt: skip
    rows = [line(*heads) for heads in METHODS]
    cells = [[figure(dice, c["value"]) for c in columns] for _ in rows]
    cells[6][8] = {**cells[6][8], "bold": True}
    cells[0][9] = cell("\u2013", note="a", title="Not run: 2.4 h at the smoke tier")
    cells[0][4] = cell("\u2013", note="a", title="Not run: 2.4 h at the smoke tier")
    cells[0][5] = cell("\u2013")
    cells[7][1] = cell("not read", title="Printed in Table 2, not read")
    cells[3][6] = cell("88.2", 88.2, title="1 run, from memory")
    return view(
        title, columns, rows, cells,
        caption="Test accuracy in per cent, mean and standard deviation over folds of labels.",
        lines=["SVHN, 40 labels: ours have the paper's data and setting, and may be subtracted.",
               "Smoke tier: digits of 8 \u00d7 8 pixels and a small network. Nothing there may be "
               "subtracted from what is printed."],
        notes=["a: not run at this tier; 2.4 h would fill it.",
               "Printed: Sohn et al., Table 2, read in arXiv:2001.07685v2.",
               "Selection: last checkpoint of each run. Device: CPU, 4 threads. Versions: torch "
               "2.9.0, numpy 2.3.4. Commit 0123456789ab. Every arm saw 1.2 million images a run; "
               "seeds 0 to 9 choose labels, weights and order."],
    )  # fmt: skip


def methods_across(seed: int = 1, title: str = "Mean teacher, Table 1") -> BenchmarkView:
    """Return a table with methods in columns, so that rows say whose their values are."""
    dice = random.Random(seed)
    columns = [line("Supervised"), line("\u03a0-model"), line("Mean teacher")]
    rows = [line("SVHN", labels, value="printed") for labels in ("250", "500", "1000")]
    rows += [line("SVHN", "1000", value="printed", by="Oliver et al.")]
    rows += [line("Ours, smoke tier", labels, value="ours", tier="smoke")
             for labels in ("40 labels", "100 labels")]  # fmt: skip
    cells = [[figure(dice, row["value"], 80.0) for _ in columns] for row in rows]
    cells[4][2] = {**cells[4][2], "bold": True}
    return view(title, columns, rows, cells)


def hostile() -> BenchmarkView:
    """Return a table whose every text attacks the markup."""
    columns = [line(HOSTILE, ARABIC, value="printed"), line(HOSTILE, HOSTILE, value="ours"),
               line("", ENDLESS, value="ours", by=HOSTILE)]  # fmt: skip
    rows = [line("", ARABIC), line(HOSTILE, ENDLESS), line(HOSTILE, ARABIC, by=ARABIC)]
    bad = cell(HOSTILE, 1.5, HOSTILE, ARABIC, True, "a", HOSTILE)
    cells = [[bad, cell(ARABIC, None, title=ARABIC), cell("1.5", 1.5)] for _ in rows]
    return view(HOSTILE, columns, rows, cells, slug="hostile", caption=ARABIC, lines=[HOSTILE],
                notes=[HOSTILE, ARABIC, HOSTILE + ENDLESS], command=HOSTILE)  # fmt: skip


def large(seed: int, rows: int = 12, columns: int = 10) -> BenchmarkView:
    """Return a table as large as the larger ones of the papers are."""
    dice = random.Random(seed)
    kinds: list[Value] = ["printed", "printed", "printed", "ours", "difference"]
    across = [line(f"Data {i // 5}", f"{40 * (i // 5 + 1)} labels", HEADS[kinds[i % 5]],
                   value=kinds[i % 5]) for i in range(columns)]  # fmt: skip
    down = [line(f"Group {i // 6}", f"Method number {i}") for i in range(rows)]
    cells = [[figure(dice, c["value"]) for c in across] for _ in down]
    return view(f"Paper {seed // 4}, Table {seed % 4 + 1}", across, down, cells)


def chapter() -> list[BenchmarkView]:
    return [methods_down(), large(3, 17, 20), methods_across()]


def page(folder: Path, shown: list[BenchmarkView]) -> Path:
    """Write a page that has these tables and no paper."""
    report: dict[str, Any] = {
        "title": "Which claims hold?", "summary": "Nothing was judged.", "scope": "", "counts": [],
        "total": 0, "papers": [], "leaders": [], "provenance": [], "command": "",
        "board_notes": [], "records": 0, "made": "", "version": "0", "benchmarks": shown,
        "shared": shown, "datasets": [], "families": [], "disagreements": [], "tiers": [],
        "widths": [], "tested": 0, "decided": 0, "replications": [],
    }  # fmt: skip
    path = folder / "index.html"
    path.write_text(_page(report, svg.Sheet()), "utf-8")  # type: ignore[arg-type]
    return path
