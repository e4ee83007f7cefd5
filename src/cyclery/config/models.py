"""Pydantic models of the configuration files.

They are the single source: JSON Schemas and the reference page are generated from them
(``cyclery docs``), and an unknown key, a wrong type or an impossible value stops before any job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from cyclery.common.errors import HERE, UserError, choices, nearest
from cyclery.common.strict import Strict, Text
from cyclery.config.comparisons import Comparison
from cyclery.config.components import QUANTITIES, check_name
from cyclery.config.plots import Plot
from cyclery.config.search import Own, Search, SearchTier, check_searches
from cyclery.config.settings import Count, Family, Name, Settings
from cyclery.config.tables import BenchmarkTable
from cyclery.engine.execution import Execution

Seeds = Annotated[int, Field(ge=1, le=1000)]


def _nothing() -> Settings:
    return Settings.model_validate({})


class RangeTest(Strict):
    """A learning-rate range test; it uses the settings of the arm that asks for it."""

    low: float = Field(ge=0, description="learning rate at the start of the sweep")
    high: float = Field(gt=0, description="learning rate at the end of the sweep")
    sweep: Literal["linear", "exponential"] = Field("linear", description="how the rate rises")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(8, description="length of the sweep")
    points: Annotated[int, Field(ge=10, le=1000)] = Field(
        100, description="evaluations along the sweep"
    )
    seeds: Seeds = Field(1, description="sweeps; their bounds are averaged geometrically")

    @model_validator(mode="after")
    def _rises(self) -> RangeTest:
        if self.low >= self.high:
            raise ValueError(f"{HERE}.low: must be below `high`, {self.high} (found {self.low}).")
        if self.sweep == "exponential" and self.low == 0:
            raise ValueError(f"{HERE}.low: must be above 0 in an exponential sweep (found 0).")
        return self


class SeedRule(Strict):
    """Which seeds of a parent a seed s of its child takes; one of the two keys."""

    nested: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description="seed s // nested: so many seeds in a row share a parent"
    )
    members: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="an ensemble of so many: seeds s * members to (s + 1) * members - 1"
    )

    @model_validator(mode="after")
    def _one(self) -> SeedRule:
        if (self.nested is None) == (self.members is None):
            raise ValueError(f"{HERE}: must have one of the keys `nested` and `members`.")
        return self


def _kind_of_seeds(value: Any) -> str | None:
    if isinstance(value, str):
        return "word"
    return "rule" if isinstance(value, dict | SeedRule) else None


SeedChoice = Annotated[
    Annotated[Literal["same", "other"], Tag("word")] | Annotated[SeedRule, Tag("rule")],
    Discriminator(
        _kind_of_seeds,
        custom_error_type="seeds",
        custom_error_message="must be same, other, or a mapping with `nested` or `members`",
    ),
]


def _parent_ref(value: Any) -> Any:
    return {"arm": value} if isinstance(value, str) else value


class ParentRef(Strict):
    """A parent, and which of its runs each seed takes; its name alone means the same seed."""

    arm: str = Field(description="`arm`, `experiment/arm` or `paper/experiment/arm`")
    seeds: SeedChoice = Field(
        "same",
        description="`same`: seed s of it; `other`: the same recipe on the same samples with "
        "new random draws, for all its ancestors too; or `nested` or `members`",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        """Allow the name alone."""
        found = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "string"}, found]}


class Arm(Settings):
    """One method with one setting: what is not set here comes from the experiment and the tier."""

    label: Text | None = Field(None, max_length=120, description="how tables and plots call it")
    role: Literal["method", "baseline", "control"] = Field(
        "control", description="what the arm is in the comparison"
    )
    own_definition: Text | None = Field(
        None, description="why this arm is the project's own definition, where it is"
    )
    parents: dict[Name, Annotated[ParentRef, BeforeValidator(_parent_ref)]] = Field(
        {},
        description="runs that must be trained first: what this arm calls them (the method says "
        "which it needs, as `teacher`; `reference` is what final figures are compared with) to "
        "`arm`, `experiment/arm`, or `arm` and `seeds`",
    )
    searched: bool = Field(
        True,
        description="whether a search of the experiment is for this arm; else its runs have "
        "the values as declared",
    )
    search_also: Own = Field(
        {}, description="what this arm's search tries besides, such as quantities of its method"
    )


Factor = Annotated[float, Field(gt=0, le=1e12)]
Speed = Annotated[float, Field(ge=1e-3, le=1e12)]
# Combinations of factors that an experiment may try, arm by arm.
MOST_TRIALS = 256
# An upper limit, as momentum has, is no place for a factor.
TUNABLE = sorted(name for name, limits in QUANTITIES.items() if not limits)


def _tunable(factors: dict[str, list[float]]) -> dict[str, list[float]]:
    for name, values in factors.items():
        if name not in TUNABLE:
            raise ValueError(
                f"{HERE}: cannot tune {name!r}.{nearest(name, TUNABLE)} "
                f"Quantities: {choices(TUNABLE)}."
            )
        if 1 not in values or len(set(values)) < len(values):
            raise ValueError(
                f"{HERE}.{name}: must be different factors, 1 among them: the value as declared "
                f"(found {values!r:.80})."
            )
    if (trials := prod(map(len, factors.values()))) > MOST_TRIALS:
        raise ValueError(
            f"{HERE}: has {trials:,} combinations, each of which would be trained; at most "
            f"{MOST_TRIALS} are allowed."
        )
    return factors


Names = Annotated[list[str], Field(max_length=10_000)]


class ExperimentTier(Strict):
    """What of an experiment a tier runs."""

    arms: Names | None = Field(None, description="the arms that run; null runs all")
    base: Settings = Field(default_factory=_nothing, description="settings of this tier")
    range: RangeTest | None = Field(None, description="range test of this tier")
    search: SearchTier | None = Field(
        None,
        description="search at this tier, with what changes of it: `{}` changes nothing; "
        "null has none, so that arms run as declared",
    )
    not_run: dict[str, Text] = Field(
        {}, description="arms left out, each with its reason; shown in the report"
    )


class Experiment(Strict):
    """Arms compared on one split, network and budget."""

    title: Text = Field(description="one line")
    description: str = Field("", description="what is compared and why")
    base: Settings = Field(default_factory=_nothing, description="settings of all its arms")
    range: RangeTest | None = Field(None, description="learning-rate range test")
    tune: Annotated[dict[str, list[Factor]], AfterValidator(_tunable)] = Field(
        {},
        description="factors that every arm tries on a quantity, such as `lr: [0.3, 1, 3]`, 1 "
        "among them. Where the tier has `tuning: true` all combinations are trained on "
        "`tuning_seeds` seeds of their own, the mean validation accuracy chooses, and the arm's "
        "runs take what it chose",
    )
    search: Search | None = Field(
        None, description="random search, at the tiers that have `search`; excludes `tune`"
    )
    tiers: dict[str, ExperimentTier] = Field(min_length=1, description="where and how it runs")
    arms: dict[Name, Arm] = Field(min_length=1, max_length=10_000, description="the arms")

    @model_validator(mode="after")
    def _search(self) -> Experiment:
        if self.search is not None and self.tune:
            raise ValueError(f"{HERE}.search: must be null beside `tune`; choose one of the two.")
        check_searches(self.search, self.tiers, self.arms)
        return self

    def lacks(self, tier: str, arms: Iterable[str]) -> bool:
        """Say whether some of its arms, among those named, do not run at a tier."""
        if tier not in self.tiers:
            return True
        running = self.tiers[tier].arms
        return running is not None and any(arm in self.arms and arm not in running for arm in arms)


class Claim(Strict):
    """A testable statement, declared before the run."""

    statement: Text = Field(description="in our words")
    source: str = Field("", description="where the paper says it")
    own_definition: Text | None = Field(
        None, description="what of the test is the project's own definition"
    )
    pooled: bool = Field(
        False, description="one verdict from the random-effects mean of all comparisons"
    )
    seeds: dict[str, Seeds] = Field(
        {}, description="planned seeds per tier, else the tier's; more than these decide nothing"
    )
    comparisons: list[Comparison] = Field([], description="all must hold")
    not_run: dict[str, Text] = Field(
        {}, description="tier (or `all`) to the reason why the claim cannot be tested there"
    )
    note: str = Field("", description="anything the reader should know")

    @model_validator(mode="after")
    def _one_mean(self) -> Claim:
        kinds = list(dict.fromkeys(comparison.kind for comparison in self.comparisons))
        if self.pooled and (len(kinds) > 1 or "ordering" in kinds):
            raise ValueError(
                f"{HERE}.pooled: needs comparisons of one kind, none an `ordering`: others have "
                f"no common mean (found {', '.join(kinds)})."
            )
        return self


class Paper(Strict):
    """A source with claims."""

    title: Text = Field(description="title")
    authors: Text = Field(description="authors")
    year: int = Field(ge=1900, le=2100, description="year")
    arxiv: str | None = Field(None, description="arXiv number")
    venue: str = Field("", description="where it appeared")
    family: Family = Field("other", description="the line of work that it belongs to")
    summary: Text = Field(description="what it says, in our words")
    deviations: list[Text] = Field([], description="where this reproduction differs")
    base: Settings = Field(default_factory=_nothing, description="settings of all experiments")
    experiments: dict[Name, Experiment] = Field({}, description="the experiments")
    not_run: dict[str, Text] = Field(
        {},
        description="tier to the reason why it tests some of the claims only: that of every claim "
        "which has none of its own and needs an experiment or an arm that does not run there",
    )
    claims: dict[Name, Claim] = Field(min_length=1, description="the claims")
    tables: Annotated[dict[Name, BenchmarkTable], Field(max_length=50)] = Field(
        {}, description="the paper's tables, ours beside what it prints"
    )
    plots: Annotated[dict[Name, Plot], Field(max_length=50)] = Field(
        {}, description="figures of arms against other ones, or against numbers"
    )

    @model_validator(mode="after")
    def _reasons(self) -> Paper:
        """Give the claims that a tier cannot test the paper's reason; a reason must serve one."""
        for tier, reason in self.not_run.items():
            served = False
            for name, claim in self.claims.items():
                if not {tier, "all"} & claim.not_run.keys() and self._lacks(tier, claim):
                    not_run = {**claim.not_run, tier: reason}
                    self.claims[name] = claim.model_copy(update={"not_run": not_run})
                    served = True
            if not served:
                raise ValueError(
                    f"not_run.{tier}: every claim is tested there or has a reason of its "
                    "own; delete this one."
                )
        return self

    def _lacks(self, tier: str, claim: Claim) -> bool:
        return any(
            self.experiments[group.experiment].lacks(tier, group.arms)
            for comparison in claim.comparisons
            for group in comparison.groups()
            if group.experiment in self.experiments
        )


def _networks(speeds: dict[str, float]) -> dict[str, float]:
    for name in speeds:
        try:
            check_name("model", name, HERE)
        except UserError as error:
            raise ValueError(str(error)) from None
    return speeds


class Tier(Strict):
    """Scale: dataset, network and budget that experiments start from."""

    title: Text = Field(description="one line for the report")
    base: Settings = Field(description="settings of every run of the tier")
    seeds: Seeds = Field(description="seeds that are run unless told otherwise")
    planned: Seeds | None = Field(
        None,
        description="seeds that claims plan before the run, looked at after every 5 and at the "
        "end; null plans `seeds`",
    )
    block: Seeds = Field(5, description="seeds per cell")
    tuning: bool = Field(False, description="train what experiments declare under `tune`")
    tuning_seeds: Seeds = Field(
        3, description="seeds on which every trial of tuning is trained, used for nothing else"
    )
    shard_by: Literal["paper", "experiment"] = Field(
        "experiment", description="whose cells one job may hold"
    )
    cells_per_job: Count | None = Field(
        None, description="cells that one job trains; null puts all into one"
    )
    images_per_second: Annotated[dict[str, Speed], AfterValidator(_networks)] = Field(
        {}, description="training speed per network that `plan` estimates with"
    )

    @model_validator(mode="after")
    def _plans(self) -> Tier:
        if self.planned is not None and self.planned < self.seeds:
            raise ValueError(
                f"{HERE}.planned: must be at least `seeds`, {self.seeds}, for seeds beyond the "
                f"plan decide nothing (found {self.planned})."
            )
        return self


_SEEDS = {"low": 1, "high": 1000}


@dataclass(frozen=True, kw_only=True)
class Config(Execution):
    """What to run, and where. Command-line overrides change these keys."""

    tier: str = field(default="smoke", metadata={"doc": "a file of config/tiers"})
    papers: tuple[str, ...] | None = field(
        default=None,
        metadata={"doc": "papers to run; null runs all", "least": 1},
    )
    seeds: int | None = field(
        default=None, metadata={"doc": "seeds to run; null takes the tier's number", **_SEEDS}
    )
    planned: int | None = field(
        default=None,
        metadata={
            "doc": "seeds that every claim plans, declared before the run; null takes what claims "
            "and tier declare",
            **_SEEDS,
        },
    )
    gres: str | None = field(
        default=None,
        metadata={
            "doc": "how SLURM is asked for a job's GPU, as in gpu:1 or gpu:a100:1; null asks by "
            "--gpus=1"
        },
    )
    results: str = field(default="results", metadata={"doc": "folder of everything that is made"})
    data: str = field(default="results/data", metadata={"doc": "folder of prepared datasets"})
    checkpoints: Literal["parents", "all"] = field(
        default="parents", metadata={"doc": "whose final weights are kept"}
    )

    def __post_init__(self) -> None:
        """Refuse names that stand twice, and what rules and SLURM could not be given."""
        for name in self.papers or ():
            if (self.papers or ()).count(name) > 1:
                raise UserError(f"papers: {name!r} stands twice (found {list(self.papers or ())}).")
        for key in ("results", "data"):
            path = getattr(self, key)
            # Rules put it into patterns and command lines, where other characters have meanings.
            long = max(map(len, path.split("/"))) > 200
            if long or not re.fullmatch(r"[\w./][\w./@+=,-]{0,499}", path):
                raise UserError(
                    f"{key}: must be a path of at most 500 letters, digits and any of . / _ - + @ "
                    f"= , (found {path!r:.80})."
                )
        if self.gres is not None and not re.fullmatch(r"gpu(:[A-Za-z0-9_.]+)?:1", self.gres):
            raise UserError(
                "gres: must be null, gpu:1 or gpu:MODEL:1, since a job trains on one GPU (found "
                f"{self.gres!r:.80})."
            )
