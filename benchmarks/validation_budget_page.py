"""The section of docs/validation.md on `cyclery decide`, from what validation_budget.py counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from validation_page import PAGE, dumps, mark, rate, table

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.formatting import between

Json = dict[str, Any]
COMMAND = "python benchmarks/validation_budget.py"
BEGIN = f"<!-- measured: written by `{COMMAND} --docs` -->"
END = "<!-- end of what a budget decides -->"

__all__ = ["dumps", "filled", "missed", "section", "write"]


def write(root: Path, stored: Path) -> None:
    """Put the stored counts into the page."""
    if not stored.is_file():
        raise UserError(f"{stored}: no counts are stored; run `{COMMAND}` first.")
    page = root / PAGE
    write_atomic(page, filled(page.read_text(encoding="utf-8"), json.loads(stored.read_bytes())))


def filled(text: str, found: Json) -> str:
    """Return the page with the figures between its two marks."""
    return between(text, BEGIN, END, section(found), PAGE)


def missed(found: Json) -> list[str]:
    """Return the cells whose false rate is above their mark."""
    return [
        f"{one['paper']}, {one['law']}, {one['what']}, {verdict}: {rate(one, verdict)}"
        for one in found["errors"]
        for verdict in ("reproduced", "contradicted")
        if one[verdict] / one["runs"] > mark(found, one["runs"])
    ]


def gain(cell: Json) -> str:
    """Return how many times as many claims the allocation decides in the same time."""
    return f"{cell['allocated'] / cell['equal']:.2f}" if cell["equal"] else "\u2013"


def section(found: Json) -> str:
    """Return all figures as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    above, cells = missed(found), 2 * len(found["errors"])
    runs = found["errors"][0]["runs"]
    rows = [
        [f"{one['paper']}, {one['law']}, {one['what']}",
         *(rate(one, verdict) for verdict in ("reproduced", "contradicted"))]
        for one in found["errors"]
    ]  # fmt: skip
    parts = [
        f"{runs:,} simulated papers a cell; {versions}; {found['made'][:10]}; "
        f"{found['minutes']:.0f} minutes. **{cells - len(above)} of {cells} rates pass their "
        f"mark of {100 * mark(found, runs):.2f} %.**"
        + "".join(f"\n\nMissed: {text}." for text in above),
        table(["papers in which something is false", "reproduced", "contradicted"], rows),
    ]
    for one in found["speed"]:
        most = one["most"]
        rows = [
            [f"{100 * cell['share']:.0f} %",
             *(f"{cell[name] / one['runs']:.2f}" for name in ("allocated", "equal")), gain(cell)]
            for cell in one["at"]
        ]  # fmt: skip
        parts += [
            f"Effects {one['effects']}, {one['runs']} papers of {one['claims']} claims:",
            table(["time, of what all seeds take", "decided", "by equal seeds", "times"], rows),
            f"Nine tenths of the claims that all seeds decide stand after "
            f"{100 * most['allocated']:.0f} % of that time, with equal seeds after "
            f"{100 * most['equal']:.0f} %: {most['equal'] / most['allocated']:.2f} times as fast. "
            "Everything is decided or hopeless after "
            f"{100 * one['ended']:.0f} % on average.",
        ]
    return "\n\n".join(parts) + "\n"
