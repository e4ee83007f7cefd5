"""Types of the evidence of a paper, an experiment or a claim.

`cyclery.evidence` writes it; report, comparison and publication read it. Figures of arms and curves
are in the records' own unit (accuracies are fractions); effects, margins and intervals of
comparisons are in percentage points for accuracies. Numbers are finite or null, and nothing is
rounded but inside sentences. ``docs/schemas/evidence.schema.json`` is made of these types.
"""

from __future__ import annotations

from typing import Literal, NotRequired

# pydantic, which makes the JSON Schemas, takes typing's own from Python 3.12 on.
from typing_extensions import TypedDict

from cyclery.records.claims import Claim, Interval
from cyclery.records.searches import Searched

SCHEMA = 2


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
    """Outcome of the runs of one tuning trial."""

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
    method: str
    data: str
    """Dataset and labels in words: digits, 40 labels. Empty of a range test, as is the next."""
    network: str
    n: int
    units: int | None
    """Independent units, where seeds share a parent or a split."""
    diverged: list[DivergedRun]
    metrics: dict[str, Metric]
    images: float | None
    """Mean over runs, as are the next four; null without a finished one."""
    views: float | None
    forwards: float | None
    """Images that passed a network forwards; those of all views for records without a count."""
    updates: float | None
    seconds: float | None
    ancestors_images: float | None
    """Samples (as ``images``) that all ancestors of the runs were trained on, each run once."""
    ancestors_views: float | None
    ancestors_forwards: float | None
    keys: list[str]
    tuned: Tuned | None
    searched: NotRequired[Searched]
    """Absent where nothing searched its values."""


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


# The whole file.


class PaperFacts(TypedDict):
    """Facts of a paper: title, authors, summary, deviations."""

    id: str
    title: str
    authors: str
    year: int
    arxiv: str | None
    venue: str
    family: NotRequired[str]
    """The line of work that it belongs to; absent in evidence from before papers had one."""
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
    decimals: int
    """With which value and std are printed: 2 of 72.50."""
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


# Benchmark tables.


class TableLine(TypedDict):
    """A row or a column of a benchmark table."""

    heads: list[str]
    """As printed, the outermost first."""
    by: str | None
    """Who reproduced what is printed here, where others than the paper's authors did."""


class FillCost(TypedDict):
    """What it would take to fill a cell at the tier nearest to the paper that has its arm."""

    tier: str
    run: str
    """Experiment and arm."""
    seconds: dict[str, float]
    """Of training, all planned seeds, at the speed that the tier declares: of the arm and of each
    of its ancestors and trials, by a name of its settings, which cells may share."""


class BenchmarkCell(TypedDict):
    """A cell that has a figure, of ours at this tier or a printed one, or could have one of ours.

    Ours is ``metrics[metric]`` of the arm, a fraction where it is shown in per cent.
    """

    row: int
    column: int
    metric: str
    shows: Literal["percent", "error", "value"]
    """How ours is shown: in per cent, as what is missing to 100 %, or as it is."""
    lower_is_better: bool
    """As shown."""
    experiment: str | None
    """Null where none of ours runs at this tier."""
    arm: str | None
    same: bool
    """Whether ours have the paper's data and setting, so that what is printed may be subtracted."""
    best: bool
    """Whether ours is the best of those it competes with, by more than the 95 % interval of the
    paired difference to the next."""
    empty: str
    """Why nothing of ours stands here; empty where it does."""
    fill: FillCost | None
    printed: int | None
    """Place among ``printed``."""


class BenchmarkTable(TypedDict):
    """A table of the paper, with ours beside what it prints."""

    id: str
    title: str
    """As printed: Table 2."""
    caption: str
    methods: Literal["rows", "columns"]
    """What is compared; the other lines are data and settings."""
    spread: Literal["sd", "none"]
    """What printed figures have after a plus-minus sign."""
    same: dict[str, str]
    """Tiers at which ours have the paper's data and setting, and in what sense."""
    note: str
    rows: list[TableLine]
    columns: list[TableLine]
    cells: list[BenchmarkCell]


# Plots.


class PlotPoint(TypedDict):
    """An arm in a plot."""

    experiment: str
    arm: str
    x: float | None
    """Its number; null where the horizontal axis is a metric."""


class PlotLine(TypedDict):
    """A line of a plot, of the arms that run at the tier."""

    label: str
    points: list[PlotPoint]


class Plot(TypedDict):
    """A figure of arms against another of theirs, or against a number of each."""

    id: str
    title: str
    caption: str
    experiment: str
    """Beside which it is shown."""
    x: str | None
    """The metric of the horizontal axis; null where it has numbers."""
    x_name: str | None
    """What these numbers are; null where it is a metric."""
    y: str
    scale: Literal["linear", "log"]
    lines: list[PlotLine]


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
    """The evidence of a part, as its file holds it."""

    tables: list[BenchmarkTable]
    plots: NotRequired[list[Plot]]
    """Absent where there is none."""
    commands: Commands
    sha256: str
    """SHA-256 of the rest, as canonical JSON."""
