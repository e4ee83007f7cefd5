"""Types of the data that the templates render."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from cyclery.records.claims import Claim, ClaimFacts, Row, Verdict
from cyclery.records.evidence import ExperimentFacts, PaperFacts, PrintedFigure, RangeFacts
from cyclery.report.chart import Chart
from cyclery.report.download import Download
from cyclery.report.tables import Table, TableView


class Strip(TypedDict):
    """The places of a comparison's marks on its axis, in per cent of its width."""

    zero: float
    low: float
    high: float
    dot: float
    dot_cut: bool
    cut_low: bool
    cut_high: bool
    inner: list[float] | None
    margins: list[float]
    zone: list[float] | None
    printed: float | None
    says: str


class Tick(TypedDict):
    """A round place on an axis."""

    place: float
    text: str


class ComparisonView(Row):
    """A comparison with its texts."""

    claim: str
    says_label: str
    says_effect: str
    says_ci: str
    says_test: str
    says_printed: str
    says_p: str
    p_adjusted: float | None
    asides: list[str]
    board: Strip | None
    card: Strip | None
    """On the axis that it shares with others of its claim and unit."""


class AxisGroup(TypedDict):
    """Comparisons of a claim that share an axis."""

    rows: list[ComparisonView]
    ticks: list[Tick]
    axis: str


class PlacedClaim(Claim):
    """A claim with where it was tested."""

    tier: str
    part: str


class ClaimView(ClaimFacts):
    """A claim as the board and its card show it."""

    tier: str
    part: str
    slug: str
    data: list[str]
    """The datasets of its arms."""
    comparisons: list[ComparisonView]
    groups: list[AxisGroup]
    on_board: list[ComparisonView]
    rank: int
    size: float | None
    says_effect: str
    experiments: list[tuple[str, str]]
    """Where its arms are: slugs and titles of experiments."""
    says_rule: str
    """Test and margin where they are not superiority to zero; of several those that all share."""
    fragile: bool
    """Whether a comparison that decides it would fall otherwise without a single seed."""
    share: float | None
    """The effect as a share of the printed one; the smallest of several."""
    says_share: str
    """The size, apart from the direction that the verdict is about: 63 % [20, 105]; of several
    comparisons the smallest and the largest share."""
    says_settle: str
    facts: list[str]
    traces: list[TableView]


State = Literal["decided", "undecided", "not run"]
Disagreement = Literal["none", "other", "opposite"]
"""Whether tiers that decided a claim differ: opposite is reproduced here, contradicted there."""


class ClaimEntry(ClaimView):
    """A claim over all tiers: the view of the tier that stands in front, and those of all."""

    at: list[ClaimView]
    """Of every tier with evidence about the paper, the nearest to the paper first."""
    state: State
    disagreement: Disagreement
    left_open: list[str]
    """Of a decided claim the tiers nearer to the paper than that in front, which left it open."""
    to_decide: list[tuple[str, str]]
    """Tiers to the seeds and the time that would decide it there."""
    says_needs: str
    """Which tier would test a claim that none ran, and how long that takes; or nothing."""
    reasons: list[tuple[str, str]]
    """Tiers that did not run it to their reason; tiers of one reason together."""


class Fold(TypedDict):
    """Claims that no tier ran, for one reason."""

    reason: str
    claims: list[ClaimEntry]


class ChartView(TypedDict):
    """A chart with its caption; the chart itself until it is drawn."""

    slug: str
    title: str
    caption: str
    chart: NotRequired[Chart]
    svg: NotRequired[str]
    file: NotRequired[Download]


class Rendered(TypedDict):
    """A table, and what the two templates show of it once it is rendered."""

    source: Table | None
    table: NotRequired[TableView | None]


class ExperimentView(ExperimentFacts, Rendered):
    """An experiment with its tables and figures."""

    slug: str
    tier: str
    settings: dict[str, str]
    charts: list[ChartView]
    source_trials: Table | None
    trials: NotRequired[TableView | None]


class RangeView(RangeFacts, Rendered):
    """A range test with its figure and readings."""

    slug: str
    tier: str
    settings: dict[str, str]
    charts: list[ChartView]


class LeadersView(Rendered):
    """All methods on one data split."""

    slug: str
    title: str
    says: str
    """How many arms of how many papers, and the best."""
    charts: list[ChartView]


Value = Literal["ours", "printed", "difference"]
"""Whose value stands in a cell of a benchmark table."""


class GridLine(TypedDict):
    """A row or a column of a benchmark table as it is shown."""

    heads: list[str]
    """The outermost first; neighbours with equal outer heads share them. All lines of an axis have
    as many: empty ones stand above the innermost."""
    value: Value | None
    """What its cells are; null on the axis of the methods."""
    by: str | None
    """Who reproduced what is printed here, where others did."""
    tier: str
    """Of ours and differences."""


class GridCell(TypedDict):
    """A cell of a benchmark table; all texts are final, and empty where there is nothing to say."""

    text: str
    """The mean with a true minus, a dash, or words such as "not read"."""
    spread: str
    """Without its sign: 0.41."""
    interval: str
    """95 %, with its brackets."""
    bold: bool
    note: str
    """Key of the note under the table that speaks of it: a."""
    title: str
    """One line on demand: n, tier, source, or why the cell is empty."""
    number: float | None
    """To sort by."""


class BenchmarkView(TypedDict):
    """A benchmark table as page and LaTeX show it, turned as the paper prints it."""

    slug: str
    paper: str
    title: str
    """As printed: Table 2."""
    caption: str
    lines: list[str]
    """What is comparable and what is not; above the table."""
    columns: list[GridLine]
    rows: list[GridLine]
    cells: list[list[GridCell]]
    """By row, as many as there are columns."""
    values: list[Value]
    """Those that some cell holds."""
    notes: list[str]
    """Under the table: keys of cells, sources, provenance."""
    command: str
    file: Download
    """All its figures as CSV."""


class PaperView(PaperFacts):
    """One paper, from the parts of evidence about it at all tiers."""

    name: str
    slug: str
    claims: list[ClaimEntry]
    """All, in the order of their declaration; the next three deal them by state."""
    decided: list[ClaimEntry]
    undecided: list[ClaimEntry]
    folds: list[Fold]
    counts: list[tuple[Verdict, int]]
    tiers: list[str]
    """Those with evidence, the nearest to the paper first."""
    absent: list[str]
    """Tiers of the report that have none."""
    citation: list[str]
    tally: str
    link: str
    scale: str
    experiments: list[ExperimentView]
    ranges: list[RangeView]
    printed_rows: list[PrintedFigure]
    in_tables: list[list[str]]
    """Titles of the benchmark tables that show each printed row."""
    benchmarks: list[BenchmarkView]
    command: str
    compute: list[tuple[str, str]]
    ran: str
    notes: list[str]
    """What stands under its tables: rule, seeds, tuning, budget, origin."""
    board_table: Table | None
    comparison_table: Table | None
    printed_table: Table | None
    printed_rest: Table | None
    """The rows that no benchmark table shows, which are all that LaTeX lists."""
    board: NotRequired[TableView | None]
    comparison: NotRequired[TableView | None]
    printed: NotRequired[TableView | None]


class ProvenanceView(TypedDict):
    """The provenance of one part as labelled facts."""

    title: str
    warnings: list[str]
    facts: list[tuple[str, str]]
    records: int
    made: str


class TierCounts(TypedDict):
    """One tier's own verdicts on all claims of the report."""

    tier: str
    papers: int
    """With evidence there."""
    counts: list[tuple[Verdict, int]]
    tested: int
    decided: int


class FamilyCounts(TypedDict):
    """The verdicts in front on the claims of a family of papers."""

    family: str
    papers: list[str]
    counts: list[tuple[Verdict, int]]
    says_share: str
    """How many of those decided are reproduced."""


class ReplicationView(TypedDict):
    """What fresh seeds said at a tier: counts, and the claims that either set of seeds decided."""

    tier: str
    counts: TableView | None
    claims: TableView | None


class ReportView(TypedDict):
    """All that the page and the LaTeX document show."""

    title: str
    summary: str
    scope: str
    counts: list[tuple[Verdict, int]]
    """Of the verdicts in front."""
    total: int
    tested: int
    """Claims that some tier tested."""
    decided: int
    widths: list[int]
    """Counts that bars are drawn of."""
    tiers: list[TierCounts]
    families: list[FamilyCounts]
    disagreements: list[ClaimEntry]
    """Claims that tiers decided otherwise, the opposite verdicts first."""
    left_open: list[ClaimEntry]
    """Decided claims that a tier nearer to the paper tested and left open."""
    papers: list[PaperView]
    benchmarks: list[BenchmarkView]
    """Of all papers, in their order."""
    shared: list[BenchmarkView]
    """Those of them that are about all papers."""
    datasets: list[str]
    """Of all claims that were tested."""
    leaders: list[LeadersView]
    replications: list[ReplicationView]
    provenance: list[ProvenanceView]
    command: str
    board_notes: list[str]
    records: int
    made: str
    version: str
