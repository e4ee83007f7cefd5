"""Merge what tiers say of a claim: one entry with every tier's verdict, one of them in front.

A claim has the same id at every tier. In front stands the tier nearest to the paper that decided
it, else the nearest that tested it, else the nearest at all, whose reason says why it was not run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cyclery.plan.cost import TIERS
from cyclery.records.claims import DECIDED, VERDICTS, Verdict
from cyclery.report.view_types import (
    ClaimEntry,
    ClaimView,
    Disagreement,
    FamilyCounts,
    Fold,
    PaperView,
    State,
    TierCounts,
)

# How the evidence of a tier ends the reason of a claim that another tier tests.
_ELSEWHERE = re.compile(r"; (the \S+ tier tests it in about .+ of training)\.?$")


def nearest(tiers: Iterable[str]) -> list[str]:
    """Return tiers once each, the nearest to the paper first; those of a project's own last."""
    known = list(reversed(TIERS))
    return sorted(set(tiers), key=lambda t: (known.index(t) if t in known else len(known), t))


def state(verdict: Verdict) -> State:
    """Return whether a verdict decides, was at least tested, or neither."""
    if verdict in DECIDED:
        return "decided"
    return "not run" if verdict == "not run" else "undecided"


_STATES: tuple[State, ...] = ("decided", "undecided", "not run")


def merge(views: Sequence[ClaimView], slugs: Mapping[str, str]) -> list[ClaimEntry]:
    """Return one entry for each claim, in the order in which the claims come.

    Of several views at one tier, as of a paper and of an experiment of it, the most telling counts.
    `slugs` are those of the entries by claim.
    """
    order = nearest(view["tier"] for view in views)
    found: dict[str, list[ClaimView]] = {}
    for view in views:
        found.setdefault(view["id"], []).append(view)
    return [_entry(group, order, slugs[name]) for name, group in found.items()]


def _entry(views: Sequence[ClaimView], order: Sequence[str], slug: str) -> ClaimEntry:
    by_tier: dict[str, ClaimView] = {}
    for view in sorted(views, key=_telling):
        by_tier.setdefault(view["tier"], view)
    at = [by_tier[tier] for tier in order if tier in by_tier]
    front = min(at, key=_telling)
    return {
        **front, "slug": slug, "at": at, "state": state(front["verdict"]),
        "disagreement": _disagreement(at), "left_open": _left_open(at, front),
        "says_needs": elsewhere(front["reason"])[1],
        "data": list(dict.fromkeys(name for view in at for name in view["data"])),
        "to_decide": [(v["tier"], v["says_settle"]) for v in at if v["says_settle"]],
        "reasons": _reasons(at),
    }  # fmt: skip


def _telling(view: ClaimView) -> int:
    return _STATES.index(state(view["verdict"]))


def _disagreement(at: Sequence[ClaimView]) -> Disagreement:
    """Say whether tiers that decided a claim decided it otherwise, or in opposite directions."""
    decided = {view["verdict"] for view in at if view["verdict"] in DECIDED}
    if {"reproduced", "contradicted"} <= decided:
        return "opposite"
    return "other" if len(decided) > 1 else "none"


def _left_open(at: Sequence[ClaimView], front: ClaimView) -> list[str]:
    """Return the tiers before the one in front that tested a claim which only that one decided."""
    if state(front["verdict"]) != "decided":
        return []
    nearer = at[: at.index(front)]
    return [view["tier"] for view in nearer if state(view["verdict"]) == "undecided"]


def _reasons(at: Sequence[ClaimView]) -> list[tuple[str, str]]:
    """Return why tiers did not run a claim, those with one reason together."""
    why: dict[str, list[str]] = {}
    for view in at:
        if view["verdict"] == "not run":
            why.setdefault(view["reason"], []).append(view["tier"])
    return [(", ".join(tiers), reason) for reason, tiers in why.items()]


def elsewhere(reason: str) -> tuple[str, str]:
    """Split the reason of a claim that was not run: why, and which tier tests it at what cost."""
    found = _ELSEWHERE.search(reason)
    if not found:
        return reason, ""
    why, needs = reason[: found.start()], found[1]
    return f"{why}.", f"{needs[:1].upper()}{needs[1:]}."


def folds(entries: Iterable[ClaimEntry]) -> list[Fold]:
    """Return the claims that no tier ran under their reasons, the reason of most claims first."""
    found: dict[str, list[ClaimEntry]] = {}
    for entry in entries:
        if entry["state"] == "not run":
            found.setdefault(elsewhere(entry["reason"])[0], []).append(entry)
    groups = sorted(found.items(), key=lambda group: -len(group[1]))
    return [{"reason": why, "claims": claims} for why, claims in groups]


def counted(verdicts: Iterable[Verdict]) -> list[tuple[Verdict, int]]:
    """Return how often each verdict stands, in their order."""
    counts = Counter(verdicts)
    return [(verdict, counts[verdict]) for verdict in VERDICTS]


def by_tier(papers: Sequence[PaperView]) -> list[TierCounts]:
    """Return every tier's own verdicts on all claims, the nearest to the paper first.

    A claim of a paper that has no evidence at a tier counts as not run there.
    """
    entries = [entry for paper in papers for entry in paper["claims"]]
    out: list[TierCounts] = []
    for tier in nearest(view["tier"] for entry in entries for view in entry["at"]):
        own = [_at(entry, tier) for entry in entries]
        run = sum(any(v["tier"] == tier for e in p["claims"] for v in e["at"]) for p in papers)
        out.append({
            "tier": tier, "papers": run, "counts": counted(own),
            "tested": sum(state(v) != "not run" for v in own),
            "decided": sum(state(v) == "decided" for v in own),
        })  # fmt: skip
    return out


def _at(entry: ClaimEntry, tier: str) -> Verdict:
    return next((view["verdict"] for view in entry["at"] if view["tier"] == tier), "not run")


def _share(decided: Sequence[ClaimEntry]) -> str:
    if not decided:
        return "\u2013"
    held = sum(c["verdict"] == "reproduced" for c in decided)
    return f"{held} of {len(decided)} ({held / len(decided):.0%})".replace("%", "\u00a0%")


def by_family(papers: Sequence[PaperView]) -> list[FamilyCounts]:
    """Return the verdicts that stand in front by family of papers, in the order of the papers."""
    found: dict[str, list[PaperView]] = {}
    for paper in papers:
        found.setdefault(paper["family"], []).append(paper)
    return [
        {
            "family": family, "papers": [paper["name"] for paper in group],
            "counts": counted(c["verdict"] for paper in group for c in paper["claims"]),
            "says_share": _share([c for paper in group for c in paper["decided"]]),
        }
        for family, group in found.items()
    ]  # fmt: skip
