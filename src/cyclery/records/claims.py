"""Types of judged claims and their comparisons, as evidence holds them.

Effects, margins and intervals are in percentage points for accuracies, and oriented so that the
claim is positive.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

# pydantic, which makes the JSON Schemas, takes typing's own from Python 3.12 on.
from typing_extensions import TypedDict

from cyclery.records.budgets import Ancestors, Measure

Verdict: TypeAlias = Literal["reproduced", "contradicted", "partly", "inconclusive", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Those that say something of the claim.
DECIDED = VERDICTS[:3]
Test: TypeAlias = Literal["superiority", "equivalence", "non-inferiority"]
Interval: TypeAlias = tuple[float, float]
"""In a file a list; an end that an interim analysis leaves open is infinite, in a file null."""


class PrintedEffect(TypedDict):
    """An effect as the paper prints it, oriented as the comparison is."""

    value: float
    unit: str
    source: str
    confidence: Literal["read", "memory"]


class OfPrinted(TypedDict):
    """An effect as a share of the printed one."""

    share: float
    ci95: Interval | None


class Look(TypedDict):
    """The planned interim analysis (look) that a verdict was read at."""

    number: int
    of: int
    seeds: int
    planned: int
    level: float
    """Level of the 95 % interval at this look alone."""


class Exploratory(TypedDict):
    """The effect with the seeds after the last look included; it does not decide the verdict."""

    seeds: list[int]
    differences: list[float]
    keys: list[list[str | None]]
    chosen: str | None
    n: int
    effect: float
    naive95: Interval | None


class Fragile(TypedDict):
    """The verdict without the seeds of one independent unit, where it would change."""

    seeds: list[int]
    verdict: Verdict


class Sensitivity(TypedDict):
    """Sensitivity analyses, shown next to a verdict; they do not decide it."""

    p_sign_flip: float
    improvement: float
    """Share of units in favour of the claim."""
    iqm: list[float]
    """Interquartile mean of each column's metric over the seeds."""


class PoolMember(TypedDict):
    """One experiment of a pooled mean."""

    experiment: str
    effect: float
    weight: float
    n: int


class Pooled(TypedDict):
    """The random-effects mean of a claim's comparisons."""

    k: int
    """Number of experiments."""
    tau2: float
    q: float
    se: float
    experiments: list[PoolMember]


class Row(TypedDict):
    """One comparison of a claim, or the pooled mean of all."""

    label: str
    kind: str
    """What is measured in each seed: difference, interaction, trend, ordering, rank correlation or
    flatness."""
    experiment: str
    """Empty for a pooled mean."""
    arm: str
    against: str
    chosen: str | None
    """The arm of several that was the best on validation."""
    metric: str
    against_metric: str | None
    """Metric of the other side, where it is another."""
    unit: str
    """``pp`` for accuracies, the letter of a rank correlation, empty for others."""
    test: Test
    margin: float
    effect: float | None
    """Positive where it favours the claim; null without data."""
    ci95: Interval | None
    """95 % interval over all looks, which the verdict is read from."""
    ci90: Interval | None
    naive95: Interval | None
    """95 % interval as if there were one look."""
    bca95: Interval | None
    """Bootstrap interval, from 10 units on."""
    p: float | None
    p_holm: float | None
    p_opposite: float | None
    """Of the opposite test, by which the claim is contradicted."""
    p_opposite_holm: float | None
    n: int
    """Independent units."""
    sd: float | None
    verdict: Verdict
    reason: str
    seeds: list[int]
    differences: list[float]
    """Of every seed, in the order of ``seeds``."""
    keys: list[list[str | None]]
    """Run keys of every seed, in the order of ``columns``."""
    units: list[list[int]] | None
    """Seeds by independent unit, where some share one."""
    left_out: list[str]
    equal: Measure
    """What the arms have equal, unless a reason says why they have not."""
    ancestors: Ancestors
    """Whose share of it counts besides an arm's own."""
    unequal_budget: str | None
    """Why the arms may have different amounts of it."""
    printed: PrintedEffect | None
    pooled: Pooled | None
    seeds_to_settle: int | None
    seconds_to_settle: float | None
    look: Look | None
    diverged: list[str]
    held_back: Verdict | None
    """The verdict that would stand, had no run diverged."""
    of_printed: OfPrinted | None
    exploratory: Exploratory | None
    fragile: list[Fragile]
    detail: str | None
    stated_effect: float | None
    stated_spread: float | None
    seeds_for_power: int | None
    """Seeds that would find the stated effect with 80 % power."""
    beside: Sensitivity | None
    columns: list[str]
    """The arms whose runs ``keys`` names."""


class ClaimFacts(TypedDict):
    """A claim and its verdict, without its comparisons."""

    id: str
    statement: str
    source: str | None
    own_definition: str | None
    """What of the test is the project's own definition."""
    note: str | None
    planned_seeds: int | None
    n: int
    seeds_to_settle: int | None
    seeds_for_power: int | None
    seconds_to_settle: float | None
    verdict: Verdict
    reason: str


class Claim(ClaimFacts):
    """A judged claim. A pooled one has its mean first, then what the mean is of."""

    comparisons: list[Row]
