"""Files that ``dvc metrics`` and ``dvc plots`` read: verdict counts and effects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from cyclery.records.claims import VERDICTS, Claim
from cyclery.records.evidence import Evidence

COLUMNS = ("test", "paper", "claim", "comparison", "metric", "unit", "effect", "low", "high",
           "n", "p_holm", "verdict")  # fmt: skip


def metrics(evidence: Sequence[Evidence]) -> str:
    """Return the verdicts of each paper and of all, counted, as JSON."""
    papers = {part["part"]: _count(part["claims"]) for part in evidence}
    everything = _count([claim for part in evidence for claim in part["claims"]])
    return json.dumps({"all": everything, "papers": papers}, indent=1, sort_keys=True) + "\n"


def _count(claims: Sequence[Claim]) -> dict[str, int]:
    counts: dict[str, int] = {verdict: 0 for verdict in VERDICTS}
    for claim in claims:
        counts[claim["verdict"]] += 1
    return {"claims": len(claims), **counts}


def effects(evidence: Sequence[Evidence]) -> str:
    """Return one row for each comparison that was tested, as CSV; intervals are of 95 %."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for part in evidence:
        for claim in part["claims"]:
            writer.writerows(_rows(part["part"], claim))
    return text.getvalue()


def _rows(paper: str, claim: Claim) -> list[dict[str, str | int | float | None]]:
    rows: list[dict[str, str | int | float | None]] = []
    for number, found in enumerate(claim["comparisons"], 1):
        if found["effect"] is None:
            continue
        low, high = found["ci95"] or (None, None)
        rows.append(
            {
                "test": f"{claim['id']}/{number}",
                "paper": paper,
                "claim": claim["id"],
                "comparison": found["label"],
                "low": low,
                "high": high,
                "metric": found["metric"],
                "unit": found["unit"],
                "effect": found["effect"],
                "n": found["n"],
                "p_holm": found["p_holm"],
                "verdict": found["verdict"],
            }
        )
    return rows
