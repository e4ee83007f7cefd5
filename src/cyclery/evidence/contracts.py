"""Input types of the judge: declared claims, and experiments with their runs.

What it makes of them is declared in `cyclery.records.evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, Required, TypeAlias, TypedDict, final

from cyclery.records.budgets import Ancestors, Measure
from cyclery.records.claims import PrintedEffect, Test
from cyclery.records.evidence import ChainNode, ScheduleLine, Tuned
from cyclery.records.record import Figure, RangeRecord, RunRecord
from cyclery.records.searches import Searched


class JudgedSweep(RangeRecord):
    """A sweep of a range test with figures that a claim can be about."""

    final: dict[str, Figure]
    curve: dict[str, list[float]]


Record: TypeAlias = RunRecord | JudgedSweep
Records: TypeAlias = Mapping[str, Record]
"""By run key."""
Labels: TypeAlias = Mapping[tuple[str, str], str]
"""How arms are called, by experiment and arm."""


class ArmRuns(TypedDict):
    """An arm with its runs."""

    id: str
    label: str
    role: str
    own_definition: str | None
    method: NotRequired[str]
    """This and the next two in words; absent of a range test."""
    data: NotRequired[str]
    network: NotRequired[str]
    runs: dict[int, str]
    """Run keys by seed."""
    schedules: dict[str, ScheduleLine]
    tuned: Tuned | None
    searched: NotRequired[Searched | None]
    first_seed: NotRequired[int]
    """The first that was planned; 0 where absent."""
    share: NotRequired[int]
    """Seeds in a row that are one independent unit; 1 where absent."""
    classes: NotRequired[int]
    """Classes of the dataset, which say what chance is; absent in a range test."""
    planned: NotRequired[int]
    """Seeds that the arm can have at most; absent where it has as many as are planned."""


class ExperimentRuns(TypedDict):
    """An experiment with the runs of its arms, in declared order."""

    id: str
    title: str
    description: str
    command: str
    selection_rule: str
    settings: dict[str, str]
    not_run: dict[str, str]
    arms: list[ArmRuns]
    chain: list[ChainNode]


@final
class BestOf(TypedDict):
    """The strictest of several arms."""

    best_of: list[str]
    by: NotRequired[str]
    """The metric that chooses; validation accuracy where absent."""


@final
class Constant(TypedDict):
    """A number in the unit of the comparison."""

    constant: float


Against: TypeAlias = str | BestOf | Constant


class Interaction(TypedDict, total=False):
    """A second difference that is taken from the first; what is null or absent is the first's."""

    experiment: str | None
    arm: str | None
    against: Against | None
    metric: str | None


class Trend(TypedDict):
    """A line through the arms of a seed."""

    values: dict[str, float]
    scale: NotRequired[Literal["linear", "log", "rank"]]
    blocks: NotRequired[list[list[str]] | None]


class RankCorrelation(TypedDict, total=False):
    """The order of arms against declared numbers, or another metric."""

    values: dict[str, float] | None
    arms: list[str] | None
    metric: str | None
    coefficient: Literal["kendall", "spearman"]


class Flatness(TypedDict):
    """Two grids of arms, point by point."""

    arms: list[str]
    against: list[str]
    by: NotRequired[Literal["share", "mean"]]
    within: NotRequired[float]


class Comparison(TypedDict, total=False):
    """A comparison as `cyclery.config.comparisons.Comparison` declares it."""

    experiment: Required[str]
    arm: str | None
    against: Against | None
    interaction: Interaction | None
    trend: Trend | None
    ordering: list[str] | None
    rank_correlation: RankCorrelation | None
    flatness: Flatness | None
    metric: str
    against_metric: str | None
    test: Test
    margin: float
    lower_is_better: bool
    effect: float | None
    spread: float | None
    printed: PrintedEffect | None
    label: str | None
    equal: Measure
    ancestors: Ancestors
    unequal_budget: str | None


class Claim(TypedDict, total=False):
    """A claim as `cyclery.config.models.Claim` declares it, with its name and planned seeds."""

    id: Required[str]
    statement: Required[str]
    source: str
    own_definition: str | None
    pooled: bool
    comparisons: Required[list[Comparison]]
    not_run: dict[str, str]
    note: str
    planned_seeds: int | None
