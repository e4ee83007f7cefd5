"""The evidence of a part (a paper, an experiment or a claim), as its file holds it.

`cyclery.evidence` writes it; report, comparison and publication read it. Figures of arms and curves
are in the records' own unit (accuracies are fractions); effects, margins and intervals of
comparisons are in percentage points for accuracies. Numbers are finite or null, and nothing is
rounded but inside sentences. ``docs/schemas/evidence.schema.json`` is made of these types.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias

# pydantic, which makes the JSON Schemas, takes typing's own from Python 3.12 on.
from typing_extensions import TypedDict

SCHEMA = 1
Verdict: TypeAlias = Literal["reproduced", "contradicted", "partly", "inconclusive", "not run"]
Test: TypeAlias = Literal["superiority", "equivalence", "non-inferiority"]
Interval: TypeAlias = tuple[float, float]
"""In a file a list; an end that a planned look leaves open is infinite, in a file null."""


# Claims.


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
    """The planned look that a verdict was read at."""

    number: int
    of: int
    seeds: int
    planned: int
    level: float
    """Level of the 95 % interval at this look alone."""


class Exploratory(TypedDict):
    """What the seeds after the last look would say, which decides nothing."""

    seeds: list[int]
    differences: list[float]
    keys: list[list[str | None]]
    chosen: str | None
    n: int
    effect: float
    naive95: Interval | None


class Fragile(TypedDict):
    """The verdict without the seeds of one independent unit, where it is another."""

    seeds: list[int]
    verdict: Verdict


class Beside(TypedDict):
    """Figures beside a verdict, which decide nothing."""

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
    """What is measured in each seed: difference, interaction, trend, ordering or rank
    correlation."""
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
    unequal_budget: str | None
    """Why the arms may see different numbers of samples."""
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
    beside: Beside | None
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


# Experiments.


class Metric(TypedDict):
    """A metric of an arm over its finished runs."""

    mean: float
    sd: float | None
    ci95: Interval | None
    values: list[float]
    seeds: list[int]


class DivergedRun(TypedDict):
    """A run that diverged."""

    seed: int
    step: int | None


class TrialOutcome(TypedDict):
    """What the runs of one trial of tuning came to."""

    val_accuracy: float | None
    """Mean over the seeds of tuning; null where a run lacks it."""
    values: list[float]
    diverged: int


class TuningTrial(TrialOutcome):
    """A setting that an arm tried."""

    factors: dict[str, float]
    """On the arm's own values."""


class Tuned(TypedDict):
    """How an arm was tuned."""

    metric: str
    seeds: list[int]
    trials: list[TuningTrial]
    chosen: dict[str, float]
    fallback: bool
    """Whether no trial was finite for all seeds, so that the values as declared were taken."""


class Arm(TypedDict):
    """An arm of an experiment; figures are over its finished runs."""

    id: str
    label: str
    role: str
    own_definition: str | None
    n: int
    units: int | None
    """Independent units, where seeds share a parent or a split."""
    diverged: list[DivergedRun]
    metrics: dict[str, Metric]
    images: float | None
    """Mean over runs, as are views, updates and seconds; null without a finished one."""
    views: float | None
    updates: float | None
    seconds: float | None
    ancestors_images: float | None
    """Labelled samples that the runs' ancestors were trained on."""
    keys: list[str]
    tuned: Tuned | None


class Curve(TypedDict):
    """A logged quantity of an arm by epoch: mean and 95 % band over seeds."""

    arm: str
    metric: str
    epoch: list[int]
    mean: list[float]
    low: list[float | None]
    high: list[float | None]
    n: int


class ScheduleLine(TypedDict):
    """A quantity over the epochs of a run."""

    epoch: list[float]
    value: list[float]


class Schedule(ScheduleLine):
    """A quantity of an arm that moves, or differs between arms."""

    quantity: str
    arm: str


class ChainParent(TypedDict):
    """A parent of a node in the chain."""

    of: str
    label: str
    seeds: str


class ChainNode(TypedDict):
    """An arm of the experiment that descends from others, or an ancestor of one."""

    id: str
    arm: str | None
    """Null for one of another experiment."""
    label: str
    level: int
    parents: list[ChainParent]


class ExperimentFacts(TypedDict):
    """An experiment, without its settings."""

    id: str
    title: str
    description: str
    selection_rule: str
    command: str
    not_run: dict[str, str]
    """Arms that the tier leaves out, and why."""
    chain: list[ChainNode]
    arms: list[Arm]
    curves: list[Curve]
    schedules: list[Schedule]
    warnings: list[str]


class Experiment(ExperimentFacts):
    """An experiment with all that its tables and figures show."""

    settings: dict[str, str]
    """Settings that its arms share, in words."""


# The whole.


class PaperFacts(TypedDict):
    """What there is to know of a paper."""

    id: str
    title: str
    authors: str
    year: int
    arxiv: str | None
    venue: str
    summary: str
    deviations: list[str]
    """Where this reproduction differs."""


class RangeFacts(TypedDict):
    """A learning-rate range test, without its settings."""

    key: str
    label: str
    seeds: list[int]
    lr: list[float]
    accuracy: list[list[float]]
    """By seed, at every rate."""
    loss: list[list[float]]
    base: float | None
    max: float | None
    readings: dict[str, float | None]
    """Rates that other tools would suggest, used by nothing."""
    flags: list[str]


class RangeTest(RangeFacts):
    """A learning-rate range test."""

    settings: dict[str, str]


class PrintedFigure(TypedDict):
    """A figure that the paper prints, as ``config/reported/<paper>.csv`` has it."""

    metric: str | None
    value: float | None
    """Null where it could not be read."""
    std: float | None
    runs: float | None
    paper: NotRequired[str | None]
    table: NotRequired[str | None]
    dataset: NotRequired[str | None]
    labels: NotRequired[str | None]
    architecture: NotRequired[str | None]
    method: NotRequired[str | None]
    source: NotRequired[str | None]
    confidence: NotRequired[str | None]


class Provenance(TypedDict):
    """Where the numbers come from; a run that experiments share counts once."""

    commits: list[str]
    versions: list[dict[str, str]]
    devices: list[str]
    seeds: list[int]
    records: int
    diverged: int
    seconds: float
    images: int
    warnings: list[str]
    made: str
    """When the newest run was started."""


class Commands(TypedDict):
    """The commands that make the part's evidence, and the report of all selected papers."""

    part: str
    report: str


class Judgement(TypedDict):
    """What follows from records and declarations alone."""

    schema: int
    tier: str
    part: str
    title: str
    paper: PaperFacts
    claims: list[Claim]
    experiments: list[Experiment]
    ranges: list[RangeTest]
    printed: list[PrintedFigure]
    provenance: Provenance


class Evidence(Judgement):
    """The evidence of a part, whole."""

    commands: Commands
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""
