"""Put the verdicts of a tier beside those of the same tier on fresh seeds.

A verdict is the *same*, *opposite* (reproduced against contradicted), *weaker* (it says less for
the claim or is open now) or *stronger*. What stands before the fresh seeds is a prediction: if both
sets have one true effect, the new mean lies within t sd sqrt(1 / n + 1 / n') of the old one, whose
n units have the spread sd, with 95 % probability (Spence and Stanley 2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from scipy import stats

from cyclery.common.seals import seal
from cyclery.records.claims import DECIDED, Claim, Interval, Row, Verdict
from cyclery.records.evidence import Evidence
from cyclery.records.replication import (
    OUTCOMES,
    SCHEMA,
    Answer,
    Outcome,
    ReplicatedClaim,
    ReplicatedComparison,
    Replication,
    Share,
    Shares,
)

# How much a verdict says for a claim. One that leaves this order becomes open, or is decided.
_FAVOUR: Mapping[Verdict, int] = {"contradicted": 0, "partly": 1, "reproduced": 2}
# The smallest of several steps, and a mean of experiments, have no spread of one sample.
_UNPREDICTED = ("ordering",)


def outcome(old: Verdict, new: Verdict, flipped: bool = False) -> Outcome:
    """Return what became of a verdict.

    ``flipped`` says that a comparison of a claim which holds partly has the opposite verdict: then
    so has the claim where it is contradicted on the other side.
    """
    if "not run" in (old, new):
        return "not run"
    if old == new:
        return "same"
    if "inconclusive" in (old, new):
        return "weaker" if new == "inconclusive" else "stronger"
    both = {old, new}
    if both == {"reproduced", "contradicted"} or (flipped and both == {"partly", "contradicted"}):
        return "opposite"
    return "weaker" if _FAVOUR[new] < _FAVOUR[old] else "stronger"


def predicted(row: Row, units: int) -> Interval | None:
    """Return the 95 % prediction interval of the effect in so many new units, or None."""
    effect, sd, n = row["effect"], row["sd"], row["n"]
    if effect is None or not sd or n < 2 or not units or row["kind"] in _UNPREDICTED:
        return None
    reach = float(stats.t.ppf(0.975, n - 1)) * sd * sqrt(1 / n + 1 / units)
    return effect - reach, effect + reach


def share(count: int, of: int) -> Share:
    """Return a share with Wilson's 95 % interval."""
    if not of:
        return {"count": count, "of": of, "share": None, "ci95": None}
    ends = stats.binomtest(count, of).proportion_ci(0.95, "wilson")
    return {"count": count, "of": of, "share": count / of,
            "ci95": (float(ends.low), float(ends.high))}  # fmt: skip


def replication(
    old: Mapping[str, Evidence], new: Mapping[str, Evidence], tier: str, first_seed: int
) -> Replication:
    """Return the replication of papers, whose evidence on both sets of seeds is given by name."""
    claims: list[ReplicatedClaim] = []
    left_out: list[str] = []
    for paper, said in old.items():
        again = {claim["id"]: claim for claim in new[paper]["claims"]}
        for claim in said["claims"]:
            where = f"{paper}.{claim['id']}"
            if claim["id"] not in again:
                left_out.append(f"{where}: is not among the new claims")
            elif why := _differ(claim, again[claim["id"]]):
                left_out.append(f"{where}: {why}")
            else:
                claims.append(_claim(paper, claim, again[claim["id"]]))
        fresh = again.keys() - {claim["id"] for claim in said["claims"]}
        left_out += [f"{paper}.{name}: is not among the old claims" for name in fresh]
    compared = [row for claim in claims for row in claim["comparisons"]]
    inside = [row["inside"] for row in compared if row["inside"] is not None]
    found: Replication = {
        "schema": SCHEMA, "tier": tier, "papers": list(old), "first_seed": first_seed,
        "seeds": [_most(side.values()) for side in (old, new)],
        "commits": [_commits(side.values()) for side in (old, new)],
        "claims": claims,
        "of_claims": _shares([(each["old"], each["outcome"]) for each in claims]),
        "of_comparisons": _shares([(row["old"]["verdict"], row["outcome"]) for row in compared]),
        "effects_inside": share(sum(inside), len(inside)),
        "left_out": sorted(left_out), "sha256": "",
    }  # fmt: skip
    return seal(found)


def _differ(old: Claim, new: Claim) -> str | None:
    """Say why two claims of one name are not the same claim, or None where they are."""
    if old["statement"] != new["statement"]:
        return "the statements differ"
    sides = [[_identity(row) for row in deciding(claim)] for claim in (old, new)]
    return None if sides[0] == sides[1] else "the comparisons differ"


def _identity(row: Row) -> tuple[object, ...]:
    return row["label"], row["metric"], row["test"], row["margin"], row["kind"]


def deciding(claim: Claim) -> list[Row]:
    """Return the comparisons that a claim's verdict hangs on: of a pooled one the mean."""
    rows = claim["comparisons"]
    return rows[:1] if rows and not rows[0]["experiment"] else rows


def _claim(paper: str, old: Claim, new: Claim) -> ReplicatedClaim:
    rows = [_compared(*pair) for pair in zip(deciding(old), deciding(new), strict=True)]
    flipped = any(row["outcome"] == "opposite" for row in rows)
    return {
        "paper": paper, "claim": old["id"], "statement": old["statement"],
        "outcome": outcome(old["verdict"], new["verdict"], flipped),
        "old": old["verdict"], "new": new["verdict"], "comparisons": rows,
    }  # fmt: skip


def _compared(old: Row, new: Row) -> ReplicatedComparison:
    reach = predicted(old, new["n"])
    effect = new["effect"]
    inside = None if reach is None or effect is None else reach[0] <= effect <= reach[1]
    return {
        "label": old["label"], "unit": old["unit"],
        "outcome": outcome(old["verdict"], new["verdict"]),
        "old": _answer(old), "new": _answer(new), "predicted": reach, "inside": inside,
    }  # fmt: skip


def _answer(row: Row) -> Answer:
    return {"verdict": row["verdict"], "effect": row["effect"], "ci95": row["ci95"], "n": row["n"]}


def _shares(rows: Sequence[tuple[Verdict, Outcome]]) -> Shares:
    """Return what became of verdicts, each given with its outcome; those not run are left out."""
    kept = [row for row in rows if row[1] != "not run"]
    decided = [found for old, found in kept if old in DECIDED]
    left = [found for old, found in kept if old not in DECIDED]
    return {
        "decided": {name: share(decided.count(name), len(decided)) for name in OUTCOMES},
        "open": {name: share(left.count(name), len(left)) for name in ("same", "stronger")},
    }


def _most(evidence: Iterable[Evidence]) -> int:
    return max((len(each["provenance"]["seeds"]) for each in evidence), default=0)


def _commits(evidence: Iterable[Evidence]) -> list[str]:
    return sorted({commit for each in evidence for commit in each["provenance"]["commits"]})
