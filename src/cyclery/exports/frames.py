"""Tables of a tier for other tools: its runs, their curves, and its claims with their verdicts.

They hold what the verdicts follow from, so that somebody can repeat the judging without this
package. Figures of runs are in the records' own unit (accuracies are fractions); effects, margins
and intervals of claims are in percentage points for accuracies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cyclery.evidence.assemble import Inputs
from cyclery.evidence.build import claim_metrics, clean, tidy
from cyclery.evidence.contracts import ArmRuns, Claim, Comparison, Record, Records
from cyclery.evidence.stats import contrasts
from cyclery.evidence.stats.pairing import ancestors, diverged_at
from cyclery.evidence.verdicts import judge, not_tested
from cyclery.records.claims import Row
from cyclery.records.metrics import curve, is_accuracy, number, smaller_is_better

Cells = dict[str, Any]
# What a record has under ``curve`` besides curves.
EPOCHS = ("epoch", "eval_epoch")
# Columns that may hold nothing.
WHOLE = ("classes", "seeds_at_most", "epochs", "diverged_step", "planned_seeds", "look", "looks")
TEXTS = ("not_tested", "chosen", "against_metric", "held_back", "declared", "commit")
CURVES = {"key": "str", "metric": "str", "epoch": "int64", "value": "float64"}


@dataclass(frozen=True)
class Tables:
    """What a tier has of some papers."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    claims: pd.DataFrame
    # Of runs by their keys.
    records: Mapping[str, Record]


def tables(tier: str, papers: Mapping[str, Inputs]) -> Tables:
    """Return the tables of papers at a tier, given what each is judged from."""
    runs: list[pd.DataFrame] = []
    claims: list[Cells] = []
    records: dict[str, Record] = {}
    for paper, found in papers.items():
        runs.append(_runs(tier, paper, found))
        claims += _claims(tier, paper, found)
        records |= found.records
    shown = pd.concat(runs, ignore_index=True)
    # Columns of several papers: what describes a run first, then figures by their names.
    described = list(dict.fromkeys(name for frame in runs for name in frame.attrs["described"]))
    figures = sorted(set(shown.columns) - set(described))
    own = {key: records[key] for key in dict.fromkeys(shown["key"]) if key in records}
    return Tables(
        _typed(shown[[*described, *figures]]), _curves(own), _typed(pd.DataFrame(claims)), own
    )


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have their type even where they hold nothing."""
    kinds = {**dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(TEXTS, "string")}
    return frame.astype({name: kind for name, kind in kinds.items() if name in frame})


def _runs(tier: str, paper: str, found: Inputs) -> pd.DataFrame:
    """Return a row for each experiment, arm and seed, whether it has run or not."""
    names = {*claim_metrics(found.claims, tier), *_choosing(found.claims)}
    frame = tidy(found.experiments, found.records, sorted(names))
    arms = {(one["id"], arm["id"]): arm for one in found.experiments for arm in one["arms"]}
    rows = [
        {"tier": tier, "paper": paper, **_described(arms[experiment, arm], key, found.records)}
        for experiment, arm, key in zip(
            frame["experiment"], frame["arm"], frame["key"], strict=True
        )
    ]
    described = pd.DataFrame(rows)
    head = ["experiment", "arm", "seed", "key", "status"]
    tail = ["device", "commit"]
    order = ["tier", "paper", *head, *(c for c in described if c not in ("tier", "paper")), *tail]
    both = pd.concat([described, frame], axis="columns")
    both = both[[*order, *(c for c in frame if c not in (*head, *tail))]]
    both.attrs["described"] = order
    return both


def _choosing(claims: Iterable[Claim]) -> set[str]:
    """Return the metrics by which controls are chosen."""
    every = [comparison for claim in claims for comparison in claim["comparisons"]]
    sides = [comparison.get("against") for comparison in every]
    sides += [(comparison.get("interaction") or {}).get("against") for comparison in every]
    return {
        str(side.get("by") or "val_accuracy")
        for side in sides if isinstance(side, dict) and "best_of" in side
    }  # fmt: skip


def _described(arm: ArmRuns, key: str, records: Records) -> Cells:
    """Return what describes a run, besides its figures."""
    cells: Cells = {
        "label": arm["label"], "role": arm["role"], "first_seed": arm.get("first_seed", 0),
        "share": arm.get("share") or 1, "seeds_at_most": arm.get("planned"),
        "classes": arm.get("classes"),
    }  # fmt: skip
    record = records.get(key)
    if record is None:
        names = ("kind", "diverged_step", "dataset", "content", "method", "model", "optimiser",
                 "epochs", "parents", "ancestors", "settings", "versions", "started")  # fmt: skip
        return cells | dict.fromkeys(names)
    settings = record["settings"]
    used = record["inputs"]["parents"].values()
    return cells | {
        "kind": record["kind"], "diverged_step": diverged_at(record),
        "dataset": settings["dataset"]["name"], "content": record["inputs"]["dataset"],
        "method": settings["method"]["name"], "model": settings["model"]["name"],
        "optimiser": settings["optimiser"]["name"], "epochs": settings["epochs"],
        "parents": sorted({each["key"] for members in used for each in members}),
        "ancestors": sorted(ancestors([key], records)),
        "settings": _json(settings), "versions": _json(record["versions"]),
        "started": record["started"],
    }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(clean(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _curves(records: Mapping[str, Record]) -> pd.DataFrame:
    """Return every curve of a number an epoch, in rows of run, metric and epoch; each run once."""
    # Columns at once: tens of thousands of small frames would take most of the time.
    columns: dict[str, list[Any]] = {name: [] for name in CURVES}
    for key, record in records.items():
        for name in sorted(record["curve"].keys() - set(EPOCHS)):
            epochs, values = curve(record, name)
            if any(isinstance(each, list) for each in values):
                continue
            columns["key"] += [key] * len(epochs)
            columns["metric"] += [name] * len(epochs)
            columns["epoch"] += epochs
            columns["value"] += map(number, values)
    return pd.DataFrame(columns).astype(CURVES)


def _claims(tier: str, paper: str, found: Inputs) -> list[Cells]:
    """Return a row for each comparison of each claim, and one for the mean of a pooled claim."""
    judged = judge(found.claims, tier, found.experiments, found.records)
    out: list[Cells] = []
    for claim, said in zip(found.claims, judged, strict=True):
        declared = list(claim["comparisons"])
        rows = list(said["comparisons"])
        pooled = bool(claim.get("pooled")) and len(rows) > len(declared)
        numbered = enumerate([None, *declared] if pooled else declared, 0 if pooled else 1)
        head: Cells = {
            "tier": tier, "paper": paper, "claim": claim["id"], "statement": claim["statement"],
            "claim_verdict": said["verdict"], "pooled": bool(claim.get("pooled")),
            "planned_seeds": claim.get("planned_seeds"), "not_tested": not_tested(claim, tier),
        }  # fmt: skip
        for (place, comparison), row in zip(numbered, rows, strict=True):
            lower = bool(comparison and comparison.get("lower_is_better"))
            out.append({**head, "comparison": place, **_compared(row), "lower_is_better": lower,
                        "declared": _json(comparison) if comparison else None,
                        **_scales(comparison)})  # fmt: skip
    return out


def _scales(comparison: Comparison | None) -> dict[str, list[str]]:
    """Return those of a comparison's metrics that are shown in per cent, and of which less is more.

    A margin or a constant is in the unit in which they are shown.
    """
    named = {name for name in contrasts.metrics(comparison or {"experiment": ""}) if name}
    if comparison is not None:
        named |= {comparison.get("metric") or "test_accuracy"}
        named |= _choosing([{"id": "", "statement": "", "comparisons": [comparison]}])
    return {
        "percent": sorted(filter(is_accuracy, named)),
        "smaller_is_better": sorted(filter(smaller_is_better, named)),
    }


def _compared(row: Row) -> Cells:
    ends = {name: row[name] or (None, None) for name in ("ci95", "ci90")}
    look = row["look"]
    return {
        "label": row["label"], "kind": row["kind"], "experiment": row["experiment"],
        "arm": row["arm"], "against": row["against"], "chosen": row["chosen"],
        "metric": row["metric"], "against_metric": row["against_metric"], "unit": row["unit"],
        "test": row["test"], "margin": row["margin"], "verdict": row["verdict"],
        "effect": row["effect"], "ci95_low": ends["ci95"][0], "ci95_high": ends["ci95"][1],
        "ci90_low": ends["ci90"][0], "ci90_high": ends["ci90"][1], "p": row["p"],
        "p_holm": row["p_holm"], "p_opposite": row["p_opposite"],
        "p_opposite_holm": row["p_opposite_holm"], "n": row["n"], "seeds": row["seeds"],
        "look": look["number"] if look else None, "looks": look["of"] if look else None,
        "held_back": row["held_back"], "reason": row["reason"],
    }  # fmt: skip
