"""Build the evidence of a paper, an experiment or a claim, which the report renders.

The caller resolves plan and schedules. What is given and what is made of it, with units, is
declared in `cyclery.evidence.contracts` and `cyclery.records.evidence`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from cyclery.common.files import write_atomic
from cyclery.evidence import arm_tables
from cyclery.evidence.arm_tables import tidy
from cyclery.evidence.contracts import Claim, ExperimentRuns, Records
from cyclery.evidence.stats import contrasts
from cyclery.evidence.verdicts import judge, not_tested
from cyclery.records.evidence import (
    SCHEMA,
    Experiment,
    Judgement,
    PaperFacts,
    PrintedFigure,
    Provenance,
    RangeTest,
)
from cyclery.records.metrics import value

T = TypeVar("T")
DIGITS = 10  # significant

__all__ = ["build", "claim_metrics", "clean", "rounded", "tidy", "write_csv"]


def build(
    tier: str, part: str, paper: PaperFacts, experiments: Sequence[ExperimentRuns],
    claims: Sequence[Claim], records: Records, needs: Mapping[str, str] | None = None,
    ranges: Sequence[RangeTest] = (), printed: Sequence[PrintedFigure] = (), *,
    title: str | None = None, only: Collection[str] | None = None,
    made: str | None = None, metrics: Collection[str] = (),
) -> Judgement:  # fmt: skip
    """Return the evidence, ready for JSON; the same for the same input.

    Args:
        tier: name of the tier.
        part: name of the part.
        paper: id, title, authors, year, arxiv, venue, family, summary, deviations.
        experiments: see the module.
        claims: all claims of the paper, since together they are the family of the correction.
        records: records by run key; those that are missing are reported as not run.
        needs: what it would take to test the claims that are not tested here, by claim.
        ranges: range tests, passed on.
        printed: printed figures, passed on.
        title: heading of the part, by default the paper's title.
        only: the claims to show; the others are judged (they belong to the family), not shown.
        made: time stamp, by default that of the newest run: the same records give the same bytes.
        metrics: metrics that arms are to have besides their finals and what claims name.
    """
    judged = judge(claims, tier, experiments, records, needs)
    frame = tidy(experiments, records, sorted({*claim_metrics(claims, tier), *metrics}))
    budgets = _budgets(claims, tier, experiments, records)
    shown = [_experiment(e, frame, records, budgets.get(e["id"], [])) for e in experiments]
    warned = [f"{e['id']}: {text}" for e in shown for text in e["warnings"]]
    found: Judgement = {
        "schema": SCHEMA, "tier": tier, "part": part, "title": title or paper["title"],
        "paper": paper,
        "claims": [claim for claim in judged if only is None or claim["id"] in only],
        "experiments": shown, "ranges": list(ranges), "printed": list(printed),
        "provenance": _provenance(frame, records, warned, made),
    }  # fmt: skip
    return clean(found)


def _experiment(
    experiment: ExperimentRuns, frame: pd.DataFrame, records: Records, budgets: list[str]
) -> Experiment:
    rows = frame[frame["experiment"] == experiment["id"]]
    return {
        "id": experiment["id"], "title": experiment["title"],
        "description": experiment["description"], "selection_rule": experiment["selection_rule"],
        "command": experiment["command"], "settings": experiment["settings"],
        "not_run": experiment["not_run"], "chain": experiment["chain"],
        "arms": arm_tables.arms(experiment, rows, records),
        "curves": arm_tables.curves(experiment, records),
        "schedules": arm_tables.schedules(experiment),
        "warnings": arm_tables.warnings(experiment, rows, records) + budgets,
    }  # fmt: skip


def claim_metrics(claims: Sequence[Claim], tier: str) -> list[str]:
    """Return the metrics that tested claims name, for the tables of the arms."""
    names = {
        name
        for claim in claims
        if not_tested(claim, tier) is None
        for comparison in claim["comparisons"]
        for name in contrasts.metrics(comparison)
    }
    return sorted(name for name in names if name)


def _budgets(
    claims: Sequence[Claim], tier: str, experiments: Sequence[ExperimentRuns], records: Records
) -> dict[str, list[str]]:
    """Return, by experiment, the comparisons whose arms have unequal budgets."""
    index = {experiment["id"]: experiment for experiment in experiments}
    out: dict[str, list[str]] = {}
    for claim in claims:
        for comparison in [] if not_tested(claim, tier) else claim["comparisons"]:
            pairs = contrasts.collect(comparison, index, records)
            odd = contrasts.unequal_budgets(comparison, pairs, records)
            if odd:
                out.setdefault(comparison["experiment"], []).append(f"{claim['id']}: {odd}.")
    return out


def _provenance(
    frame: pd.DataFrame, records: Records, warned: Sequence[str], made: str | None
) -> Provenance:
    """Return where the numbers come from. A run that experiments share counts once."""
    used = [records[key] for key in sorted(set(frame["key"])) if key in records]
    versions = {tuple(sorted(r["versions"].items())) for r in used}
    totals = {name: sum(value(r, name) or 0 for r in used) for name in ("seconds", "images")}
    return {
        "commits": sorted({r["commit"] for r in used if r["commit"]}),
        "versions": [dict(found) for found in sorted(versions)],
        "devices": sorted({r["device"] for r in used}),
        "seeds": sorted({int(seed) for seed in frame["seed"]}),
        "records": len(used), "diverged": sum(r["status"] == "diverged" for r in used),
        "seconds": totals["seconds"], "images": int(totals["images"]), "warnings": list(warned),
        "made": made or max((r["started"] for r in used), default=""),
    }  # fmt: skip


def clean(value: T) -> T:
    """Return plain JSON values: numpy's and tuples converted, numbers that are not finite None."""
    return cast(T, _clean(value, None))


def rounded(value: T) -> T:
    """Return plain JSON values as `clean` does, with numbers of ``DIGITS`` significant digits.

    What processors sum in another order differs in digits after these, so that all of them write
    the same evidence.
    """
    return cast(T, _clean(value, DIGITS))


def _clean(value: Any, digits: int | None) -> Any:
    kind = type(value)
    if kind is float:
        if not isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if value is None or kind in (str, int, bool):
        return value
    if isinstance(value, list | tuple):
        return [_clean(item, digits) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _clean(item, digits) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return _clean(value.tolist(), digits)
    return value


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a tidy table; the bytes depend on the table only, and appear all at once."""
    write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
