"""The command ``cyclery export``: Parquet tables and TensorBoard event files of a tier."""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.config.folders import misplaced

if TYPE_CHECKING:
    import pandas as pd

    from cyclery.plan.graph import Plan

log = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "papers",
        nargs="*",
        metavar="PAPER",
        help="papers; by default all with all of their records",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to")
    parser.add_argument("--tier", help="a file of config/tiers, by default the selected one")
    parser.add_argument(
        "--format", choices=("parquet", "tensorboard", "both"), default="parquet",
        help="tables of runs, curves and claims (the default), event files, or both",
    )  # fmt: skip


def export(plan: Plan, options: argparse.Namespace) -> None:
    """Write the tables and event files, and the list of their checksums."""
    # pandas takes half a second to import, and every other command adds these options too.
    from cyclery.evidence.assemble import read_inputs
    from cyclery.exports import event_files
    from cyclery.exports.frames import tables

    if problem := misplaced(plan.project.root, str(options.to.resolve())):
        raise UserError(f"--to: {problem}")
    papers = options.papers or _with_records(plan)
    for paper in papers:
        if not plan.part_arms(paper):
            raise UserError(f"{paper}: has no experiment at the tier {plan.tier!r}; leave it out.")
    found = tables(plan.tier, {paper: read_inputs(plan, paper) for paper in papers})
    files: list[Path] = []
    if options.format != "tensorboard":
        for name in ("runs", "curves", "claims"):
            files.append(options.to / f"{name}.parquet")
            write_atomic(files[-1], parquet(getattr(found, name)))
    if options.format != "parquet":
        files += event_files.write(found, options.to / "tensorboard")
    checksums.write(options.to / checksums.NAME, files)
    log.info(
        "%s: %d runs, %d points of curves, %d comparisons",
        options.to, len(found.runs), len(found.curves), len(found.claims),
    )  # fmt: skip


def _with_records(plan: Plan) -> list[str]:
    """Return the selected papers that have all of their records at the tier."""
    from cyclery.plan.atlas import Atlas
    from cyclery.plan.snakemake_api import Graph

    folder = plan.project.results / plan.tier / "records"
    atlas = Atlas(Graph(plan, {}))
    found = [paper for paper in plan.project.selected() if atlas.whole(plan.tier, paper)]
    left_out = [paper for paper in plan.project.selected() if paper not in found]
    if not found:
        raise UserError(
            f"{folder}: has the records of no selected paper; run one with Snakemake, or "
            "`cyclery fetch` a published tier."
        )
    if left_out:
        log.info("without all of their records at %s: %s", plan.tier, ", ".join(left_out))
    return found


def parquet(frame: pd.DataFrame) -> bytes:
    """Return a table as Parquet: the same bytes for one table with one version of pyarrow."""
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False, engine="pyarrow", compression="zstd")
    return stream.getvalue()
