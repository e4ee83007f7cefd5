"""The command ``report``: render evidence to a folder, and list its checksums."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.common.files import disk_errors
from cyclery.records.evidence import Evidence
from cyclery.records.readers import read_evidence

log = logging.getLogger(__name__)


def report(
    paths: list[Path], folder: Path, also: Sequence[Path] = (), replications: Sequence[Path] = ()
) -> None:
    """Render evidence as a page, LaTeX and, where there is a LaTeX, a PDF; list all sums but its.

    `also` is evidence of other tiers, for the benchmark tables; what cannot be used is left out.
    `replications` are what `cyclery replicate` found, a file for each tier.
    """
    # Here, for what draws and renders takes a while to import.
    from cyclery.report import replication
    from cyclery.report.build import build
    from cyclery.report.tex import compile_pdf

    evidence = [read_evidence(path) for path in paths]
    # Of the evidence, not of the configuration, which may have changed since.
    tier = ", ".join(sorted({str(part.get("tier")) for part in evidence}))
    # No list while what it lists is written; and no PDF of an earlier report.
    for stale in (folder / checksums.NAME, folder / "report.pdf"):
        with disk_errors(stale):
            stale.unlink(missing_ok=True)
    found = list(map(replication.read, replications))
    page = build(evidence, folder, tier, list(_usable(also)), found)
    pdf = compile_pdf(folder)
    kinds = ("benchmarks/*.sty", "benchmarks/*.tex", "tables/*.tex", "figures/*.pdf")
    parts = [path for kind in kinds for path in folder.glob(kind)]
    # Without the PDF: what a LaTeX makes of report.tex is another file with every version of it.
    checksums.write(folder / checksums.NAME, [page, folder / "report.tex", *parts])
    log.info("report: %s%s", page, f" and {pdf.name}" if pdf else "")


def _usable(paths: Sequence[Path]) -> Iterator[Evidence]:
    """Yield the evidence that can be read and has the shape of this version."""
    from cyclery.report.model import complete

    for path in paths:
        try:
            yield complete(read_evidence(path))
        except UserError as error:
            log.warning("left out of the benchmark tables: %s", error)
