"""Types of a replication: the verdicts of a tier beside those of the same tier on fresh seeds.

`cyclery replicate` writes it, the report reads it. Effects and intervals are in percentage points
for accuracies, and oriented so that the claim is positive.
``docs/schemas/replication.schema.json`` is made of these types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

# pydantic, which makes the JSON Schemas, takes typing's own from Python 3.12 on.
from typing_extensions import TypedDict

from cyclery.records.claims import Interval, Verdict

SCHEMA = 1
Outcome: TypeAlias = Literal["opposite", "weaker", "same", "stronger", "not run"]
# Of claims that both sets of seeds tested: what needs a reader's eye first.
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)[:-1]


class Answer(TypedDict):
    """What one set of seeds says of a comparison."""

    verdict: Verdict
    effect: float | None
    ci95: Interval | None
    n: int
    """Independent units."""


class ReplicatedComparison(TypedDict):
    """A comparison of a claim on both sets of seeds."""

    label: str
    unit: str
    outcome: Outcome
    old: Answer
    new: Answer
    predicted: Interval | None
    """Where the new effect lies in 95 of 100 cases if both have one true effect; null where the
    spread of the old is not known, and of orderings and pooled means."""
    inside: bool | None
    """Whether the new effect lies there."""


class ReplicatedClaim(TypedDict):
    """A claim on both sets of seeds."""

    paper: str
    claim: str
    statement: str
    outcome: Outcome
    old: Verdict
    new: Verdict
    comparisons: list[ReplicatedComparison]
    """Those that the verdict hangs on: of a pooled claim the mean."""


class Share(TypedDict):
    """So many of so many, with Wilson's 95 % interval."""

    count: int
    of: int
    share: float | None
    """Null of none."""
    ci95: Interval | None


class Shares(TypedDict):
    """What became of verdicts."""

    decided: dict[Outcome, Share]
    """Of those that the old seeds decided: reproduced, contradicted, partly."""
    open: dict[Outcome, Share]
    """Of those that were inconclusive there; stronger is decided now."""


class Replication(TypedDict):
    """A tier on fresh seeds beside what it was."""

    schema: int
    tier: str
    papers: list[str]
    first_seed: int
    """The first of the new seeds."""
    seeds: list[int]
    """How many seeds the papers' runs have, old and new, at most."""
    commits: list[list[str]]
    """Those that trained the old runs, and the new ones."""
    claims: list[ReplicatedClaim]
    of_claims: Shares
    of_comparisons: Shares
    effects_inside: Share
    """New effects within the prediction interval of the old."""
    left_out: list[str]
    """Claims that cannot be put side by side, and why."""
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""


def moved(found: Replication) -> list[ReplicatedClaim]:
    """Return the claims that either set of seeds decided, opposite verdicts first."""
    shown = (
        claim
        for claim in found["claims"]
        if claim["outcome"] in OUTCOMES and not claim["old"] == claim["new"] == "inconclusive"
    )
    return sorted(shown, key=lambda claim: OUTCOMES.index(claim["outcome"]))


def find(results: Path, tier: str) -> Path | None:
    """Return the replication of a tier below the folder of results: own, else a published one."""
    places = (
        results / "replication" / tier / "replication.json",
        results / "published" / "replication" / f"{tier}.json",
    )
    return next((path for path in places if path.is_file()), None)
