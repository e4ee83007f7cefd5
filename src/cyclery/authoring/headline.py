"""Generate the counts of published verdicts that stand in the README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.formatting import between
from cyclery.plan.cost import TIERS
from cyclery.records.claims import DECIDED

PAGE = Path("README.md")
PUBLISHED = Path("results/published")
BEGIN, END = "<!-- published: written by `make docs` -->", "<!-- end of published -->"


def page(root: Path) -> str:
    """Return the README with the counts of all published tiers between its two marks.

    A UserError names the README without its marks, or metrics that cannot be read.
    """
    text = (root / PAGE).read_text(encoding="utf-8")
    return between(text, BEGIN, END, section(root / PUBLISHED), PAGE)


def section(folder: Path) -> str:
    """Return the table of the published tiers, a line for each; those of a project's own last."""
    files = sorted(
        folder.glob("*/metrics.json"),
        key=lambda file: (*(file.parent.name != tier for tier in TIERS), file.parent.name),
    )
    rows = [
        "| published tier | papers | claims | tested there | decided | reproduced | contradicted "
        "| partly | inconclusive |",
        "| --- |" + " ---: |" * 8,
    ]
    for file in files:
        papers, count = _counts(file)
        tested = count["claims"] - count["not run"]
        decided = sum(count[verdict] for verdict in DECIDED)
        share = f"{decided} ({100 * decided / tested:.0f} %)" if tested else "0"
        each = [count[verdict] for verdict in (*DECIDED, "inconclusive")]
        cells = [file.parent.name, papers, count["claims"], tested, share, *each]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


def _counts(file: Path) -> tuple[int, Mapping[str, int]]:
    """Return how many papers a tier has, and its claims by verdict."""
    try:
        found = parse_json(read_regular(file))
        papers, count = len(found["papers"]), found["all"]
        if not all(isinstance(count[name], int) for name in ("claims", "not run", "inconclusive")):
            raise ValueError("a count is not a whole number")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not the metrics of a publication ({error!r}); `cyclery publish` writes them."
        ) from None
    return papers, count
