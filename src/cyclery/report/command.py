"""The command ``report``: render evidence to a folder, and list its checksums."""

from __future__ import annotations

import logging
from pathlib import Path

from cyclery.common import checksums
from cyclery.common.files import disk_errors
from cyclery.records.readers import read_evidence

log = logging.getLogger(__name__)


def report(paths: list[Path], folder: Path) -> None:
    """Render evidence as a page, LaTeX and, where there is a LaTeX, a PDF; list their sums."""
    # Here, for matplotlib takes a while to import.
    from cyclery.report.build import build
    from cyclery.report.tex import compile_pdf

    evidence = [read_evidence(path) for path in paths]
    # Of the evidence, not of the configuration, which may have changed since.
    tier = ", ".join(sorted({str(part.get("tier")) for part in evidence}))
    # No list while what it lists is written; and no PDF of an earlier report.
    for stale in (folder / checksums.NAME, folder / "report.pdf"):
        with disk_errors(stale):
            stale.unlink(missing_ok=True)
    page = build(evidence, folder, tier)
    pdf = compile_pdf(folder)
    parts = [*folder.glob("tables/*.tex"), *folder.glob("figures/*.pdf"), *([pdf] if pdf else [])]
    checksums.write(folder / checksums.NAME, [page, folder / "report.tex", *parts])
    log.info("report: %s%s", page, f" and {pdf.name}" if pdf else "")
