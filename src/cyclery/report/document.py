"""What the LaTeX document shows: a board for each paper, what it cost, and what lies beside it.

Everything else, from the tables of arms to the curves, is a file of its own for other documents.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any, TypedDict

from cyclery.records.claims import DECIDED
from cyclery.report.intervals import digits_for
from cyclery.report.model import number
from cyclery.report.tables import TONES
from cyclery.report.view_types import (
    ClaimEntry,
    ClaimView,
    PaperView,
    ProvenanceView,
    ReportView,
)

STATEMENT, SHORT, REASON = 190, 110, 170  # characters: decided, undecided, why not run
REASONS = 5  # of a paper, the commonest; the others are counted
NAMES = 6  # of claims under one reason
# Of a line: a letter of a name, and names and statements together.
SHARE, NAMED = 0.0113, 0.415
_SEVERAL = re.compile("; |, (?=[0-9a-f]{7,})")

# What the last part of a file's name says: in the order in which the document lists them.
BESIDE = {
    "tables": {
        "summary": "the board of a paper, as in this document",
        "verdicts": "every claim of a paper with its verdict and reason",
        "comparisons": "every comparison with its test, interval and p",
        "arms": "the arms of an experiment: metrics, cost, time",
        "trials": "the trials of tuning or of a search",
        "readings": "the bounds that a range test gave",
        "printed": "what a paper prints and no benchmark table shows",
        "table": "every arm on one data split, by accuracy",
    },
    "benchmarks": {"": "the papers' own tables, with ours beside"},
    "figures": {
        "paired": "the differences seed by seed", "curves": "learning curves",
        "tuning": "validation accuracy over what was tuned", "schedules": "schedules",
        "chain": "which runs are parents of which",
        "plot": "accuracy against time, and range tests", "": "plots and searches of experiments",
    },
}  # fmt: skip


class Line(TypedDict):
    """What one tier says of a claim."""

    tier: str
    verdict: str
    shade: str
    front: bool
    effect: str
    last: str
    """The share of the printed effect, or of an undecided claim what would decide it."""


class Entry(TypedDict):
    """A claim with what every tier that tested it says."""

    id: str
    statement: str
    lines: list[Line]


class Untested(TypedDict):
    """Claims that were not run for one reason."""

    count: int
    reason: str
    names: str


class Summary(TypedDict):
    """What the template of a paper's board shows."""

    paper: PaperView
    several: bool
    """Whether there is more than one tier to name."""
    widths: tuple[str, str]
    """Of the columns of names and of statements, as shares of a line."""
    blocks: list[tuple[str, str, list[Entry]]]
    """Heads of a block and of its last column, and its claims."""
    untested: list[Untested]
    more: int
    """Claims that were not run for further reasons."""


class Origin(TypedDict):
    """What was run, by paper and tier, and where."""

    rows: list[list[str]]
    facts: list[tuple[str, str]]
    notes: int


class Files(TypedDict):
    """Files of a kind that other documents may take in."""

    name: str
    count: int
    what: str


def summary(paper: PaperView, several: bool) -> Summary:
    """Return a paper's board: what was decided, what was tested, why the rest was not."""
    decided = [_entry(c, STATEMENT, "says_share") for c in paper["decided"]]
    undecided = [_entry(c, SHORT, "says_settle") for c in paper["undecided"]]
    blocks = [("Decided", "Of the printed", decided), ("Tested, undecided", "To decide", undecided)]
    untested: list[Untested] = [
        {"count": len(fold["claims"]), "reason": _short(fold["reason"].rstrip("."), REASON),
         "names": _names(claim["id"] for claim in fold["claims"])}
        for fold in paper["folds"][:REASONS]
    ]  # fmt: skip
    rest = paper["folds"][REASONS:]
    # Names break at their hyphens alone.
    parts = (part for c in paper["claims"] for part in re.split("(?<=-)", c["id"]))
    name = min(max(SHARE * max(map(len, parts), default=0), 0.085), 0.2)
    return {
        "paper": paper, "several": several,
        "widths": (f"{name:.3f}", f"{NAMED - name:.3f}"),
        "blocks": [block for block in blocks if block[2]],
        "untested": untested, "more": sum(len(fold["claims"]) for fold in rest),
    }  # fmt: skip


def _entry(claim: ClaimEntry, most: int, last: str) -> Entry:
    tested = [view for view in claim["at"] if view["verdict"] != "not run"]
    statement = _short(claim["statement"], most) + ("\u2020" if claim["own_definition"] else "")
    lines = [_line(view, view["tier"] == claim["tier"], last) for view in tested]
    return {"id": claim["id"], "statement": statement, "lines": lines}


def _line(view: ClaimView, front: bool, last: str) -> Line:
    return {
        "tier": view["tier"], "verdict": view["verdict"], "shade": TONES[view["verdict"]],
        "front": front, "effect": _effect(view),
        "last": view["says_share"] if last == "says_share" else view["says_settle"],
    }  # fmt: skip


def _effect(view: ClaimView) -> str:
    """Return a claim's effect; of several comparisons how many hold, and from where to where."""
    beside = [view["says_rule"], "fragile" if view["fragile"] else ""]
    return "; ".join(filter(None, [_size(view), *beside]))


def _size(view: ClaimView) -> str:
    found = view["on_board"]
    if len(found) < 2:
        return view["says_effect"]
    said = f"{sum(c['verdict'] == 'reproduced' for c in found)}/{len(found)} hold"
    units = {c["unit"] for c in found}
    if len(units) > 1:
        return said
    digits = max(map(digits_for, found))
    ends = sorted(c["effect"] for c in found if c["effect"] is not None)
    low, high = (number(end, digits, sign=True) for end in (ends[0], ends[-1]))
    return f"{said}, {low} to {high} {units.pop()}".strip()


def _short(text: str, most: int) -> str:
    """Return whole words of a text, as many as fit."""
    return shorten(text, most, placeholder=" \u2026")


def _names(names: Iterable[str]) -> str:
    """Return names in a line, many of them cut."""
    every = list(names)
    more = f" and {len(every) - NAMES} more" if len(every) > NAMES else ""
    return ", ".join(every[:NAMES]) + more


def document(shown: ReportView, written: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Return what the document shows besides the view; `written` are the files by folder."""
    tiers = [(one["tier"], one["counts"], shown["total"]) for one in shown["tiers"]]
    front = [("in front", shown["counts"], shown["total"])] if len(tiers) > 1 else []
    families = [(one["family"], one["counts"], sum(n for _, n in one["counts"]))
                for one in shown["families"]]  # fmt: skip
    return {
        "tones": TONES, "decisive": DECIDED, "origin": origin(shown["provenance"]),
        "tier_rows": [*tiers, *front], "family_rows": families, "beside": beside(written),
    }  # fmt: skip


def origin(parts: Sequence[ProvenanceView]) -> Origin:
    """Return a row for each part, and devices, versions and commits of all."""
    found = [(part["title"], dict(part["facts"])) for part in parts]
    heads = ("Tier", "Records", "Seeds", "Training time", "Images seen")
    rows = [[title, *(facts.get(head, "") for head in heads)] for title, facts in found]
    for row, before in reversed(list(zip(rows[1:], rows, strict=False))):
        row[0] = "" if row[0] == before[0] else row[0]
    for row in rows:
        row[2] = row[2].replace(", of which 0 diverged", "")
    shared = {
        name: list(dict.fromkeys(
            one for _, facts in found for one in _SEVERAL.split(facts.get(name, "")) if one))
        for name in ("Devices", "Versions", "Commits")
    }  # fmt: skip
    return {
        "rows": rows,
        "facts": [(name, "; ".join(each)) for name, each in shared.items() if each],
        "notes": sum(len(part["warnings"]) for part in parts),
    }


def beside(written: Mapping[str, Iterable[str]]) -> list[Files]:
    """Return how many files of each kind lie beside the document."""
    out: list[Files] = []
    for folder, kinds in BESIDE.items():
        suffix = ".pdf" if folder == "figures" else ".tex"
        names = (name for name in written[folder] if name.endswith(suffix))
        counts = Counter(_kind(name.removesuffix(suffix), kinds) for name in names)
        for kind, what in kinds.items():
            if counts[kind]:
                name = f"{folder}/\u2026-{kind}{suffix}" if kind else f"{folder}/\u2026{suffix}"
                out.append({"name": name, "count": counts[kind], "what": what})
    return out


def _kind(name: str, kinds: Mapping[str, str]) -> str:
    last = re.sub(r"-\d+$", "", name).rsplit("-", 1)[-1]
    return last if last in kinds else ""
