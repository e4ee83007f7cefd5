"""The models that every configuration file is validated against.

They are the single source: JSON Schemas and the reference page are generated from them
(``cyclery docs``), and an unknown key, a wrong type or an impossible value stops before any job.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from cyclery import schedules
from cyclery.errors import UserError, choices, nearest

NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
Seeds = Annotated[int, Field(ge=1, le=1000)]
# Stands for the key in messages about what is inside a quantity.
KEY_MARK = "@"


class Strict(BaseModel):
    """A model that knows every one of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(
                        f"unknown key {key!r}.{nearest(key, cls.model_fields)} "
                        f"Allowed: {choices(cls.model_fields)}"
                    )
        return data


def _quantity(value: Any) -> Any:
    try:
        # load.validate puts the key in the place of the mark.
        schedules.check(value, KEY_MARK)
    except UserError as error:
        raise ValueError(str(error)) from None
    return value


def _rate(value: Any) -> Any:
    """Expand ``range``: three triangular cycles between the bounds of the range test."""
    if value == "range":
        value = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 3}
    return _quantity(value)


# A quantity is a number or a schedule; cyclery.schedules owns what is allowed inside.
QuantityField = Annotated[
    Any,
    BeforeValidator(_quantity),
    WithJsonSchema({"x-ref": "Quantity"}),
]


RateField = Annotated[
    Any,
    BeforeValidator(_rate),
    WithJsonSchema({"anyOf": [{"const": "range"}, {"x-ref": "Quantity"}]}),
]


class TwoLevel(Strict):
    """Half of the classes, drawn per seed, hold more samples than the other half."""

    kind: Literal["two_level"]
    ratio: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        description="samples per class in the larger and in the smaller half, as a ratio"
    )


class LongTail(Strict):
    """Exponential long tail: class k holds n_max * ratio^(k / (K - 1)) samples."""

    kind: Literal["long_tail"]
    ratio: float = Field(gt=0, le=1, description="samples of the rarest class over the commonest")


class Split(Strict):
    """Which samples train, validate and test; a pure function of these and the seed."""

    test: Annotated[int, Field(ge=1)] | None = Field(
        None, description="test samples drawn per seed; null where the dataset has a test set"
    )
    validation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="validation samples, drawn stratified from the training set"
    )
    labels: Annotated[int, Field(ge=1)] | None = Field(
        None, description="training samples in total; null takes all that are left"
    )
    per_class: Annotated[int, Field(ge=1)] | None = Field(
        None, description="training samples of every class; excludes `labels`"
    )
    choose: Literal["random", "first"] | None = Field(
        None, description="draw the training samples per seed, or take the first ones in file order"
    )
    imbalance: Annotated[TwoLevel | LongTail, Field(discriminator="kind")] | None = Field(
        None, description="class imbalance of the training samples"
    )


Choice = Annotated[
    dict[str, Any],
    BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                },
            ]
        }
    ),
]


class Settings(Strict):
    """Settings of a run. Every layer (tier, experiment, arm) may set any of them."""

    dataset: str | None = Field(None, description="a dataset of the registry")
    split: Split | None = Field(None, description="training, validation and test samples")
    model: Choice | None = Field(None, description="network: a name, or `name` with its settings")
    method: Choice | None = Field(
        None, description="training method: a name, or `name` with its settings and quantities"
    )
    optimiser: Choice | None = Field(
        None, description="optimiser: a name, or `name` with its settings"
    )
    lr: RateField = Field(
        None,
        description="learning rate; the word `range` runs three triangular cycles between the "
        "bounds of the range test",
    )
    momentum: QuantityField = Field(None, description="momentum, or beta1 of Adam")
    weight_decay: QuantityField = Field(None, description="decay of weights")
    weight_decay_norm: QuantityField = Field(
        None, description="decay of biases and normalisation parameters"
    )
    clip_norm: QuantityField = Field(None, description="bound on the global gradient norm")
    batch: QuantityField = Field(None, description="samples per update; may follow a schedule")
    magnitude: QuantityField = Field(
        None, description="strength of `randaugment`, 0 to 10; may follow a schedule"
    )
    augment: list[dict[str, Any]] | None = Field(
        None, description="augmentations in order, each `{op: name, ...}`"
    )
    epochs: Annotated[int, Field(ge=1)] | None = Field(None, description="passes over the samples")
    precision: Literal["fp32", "bf16"] | None = Field(None, description="arithmetic of the network")
    deterministic: bool | None = Field(None, description="bitwise repeatable kernels on a GPU")
    threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="torch threads per run on a CPU; changes the last bits of results"
    )
    evaluations: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="how often a run is evaluated on its way, spread evenly; the end always is",
    )
    init: str | None = Field(None, description="name of the parent whose weights start the run")


class RangeTest(Strict):
    """A learning-rate range test; it uses the settings of the arm that asks for it."""

    low: float = Field(ge=0, description="learning rate at the start of the sweep")
    high: float = Field(gt=0, description="learning rate at the end of the sweep")
    sweep: Literal["linear", "exponential"] = Field("linear", description="how the rate rises")
    epochs: Annotated[int, Field(ge=1)] = Field(8, description="length of the sweep")
    points: Annotated[int, Field(ge=10, le=1000)] = Field(
        100, description="evaluations along the sweep"
    )
    seeds: Seeds = Field(1, description="sweeps; their bounds are averaged geometrically")

    @model_validator(mode="after")
    def _rises(self) -> RangeTest:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.sweep == "exponential" and self.low == 0:
            raise ValueError("an exponential sweep needs low > 0")
        return self


class Arm(Settings):
    """One method with one setting: what is not set here comes from the experiment and the tier."""

    label: str | None = Field(None, max_length=120, description="how tables and plots call it")
    role: Literal["method", "baseline", "control"] = Field(
        "control", description="what the arm is in the comparison"
    )
    own_definition: str | None = Field(
        None, description="why this arm is the project's own definition, where it is"
    )
    parents: dict[Name, str] = Field(
        {}, description="runs that must be trained first: name to `arm` or `experiment/arm`"
    )


class ExperimentTier(Strict):
    """What of an experiment a tier runs."""

    arms: list[str] | None = Field(None, description="the arms that run; null runs all")
    base: Settings = Field(default_factory=Settings, description="settings of this tier")
    range: RangeTest | None = Field(None, description="range test of this tier")
    not_run: dict[str, str] = Field(
        {}, description="arms left out, each with its reason; shown in the report"
    )


class Experiment(Strict):
    """Arms compared on one split, network and budget."""

    title: str = Field(description="one line")
    description: str = Field("", description="what is compared and why")
    base: Settings = Field(default_factory=Settings, description="settings of all its arms")
    range: RangeTest | None = Field(None, description="learning-rate range test")
    tune: dict[str, list[Any]] = Field(
        {},
        description="values of a setting that every arm tries; the validation split chooses. "
        "Trained where the tier has `tuning: true`",
    )
    tiers: dict[str, ExperimentTier] = Field(min_length=1, description="where and how it runs")
    arms: dict[Name, Arm] = Field(min_length=1, description="the arms")


class BestOf(Strict):
    """The strictest of several arms, chosen on the validation split."""

    best_of: list[str] = Field(min_length=1, description="arms to choose from")
    by: str = Field("val_accuracy", description="the metric that chooses, averaged over seeds")


class Constant(Strict):
    """A fixed number instead of an arm."""

    constant: float = Field(description="what the metric is compared with")


class Comparison(Strict):
    """One comparison of a claim."""

    experiment: str = Field(description="where the arms are")
    arm: str = Field(description="the arm that the claim favours")
    against: str | BestOf | Constant = Field(description="what it is compared with")
    metric: str = Field("test_accuracy", description="a final metric, or `curve@fraction`")
    against_metric: str | None = Field(
        None, description="metric of the other side, if it is another"
    )
    test: Literal["superiority", "equivalence", "non-inferiority"] = Field(
        "superiority", description="the test"
    )
    margin: float = Field(0.0, ge=0, description="percentage points for accuracies")
    lower_is_better: bool = Field(False, description="the claim is that the metric is smaller")
    label: str | None = Field(None, description="how the report calls it")
    unequal_budget: str | None = Field(
        None, description="why the arms may see different numbers of samples"
    )

    @model_validator(mode="after")
    def _margin(self) -> Comparison:
        if self.test != "superiority" and self.margin == 0:
            raise ValueError(f"test {self.test!r} needs a margin above 0")
        return self


class Claim(Strict):
    """A testable statement, declared before the run."""

    statement: str = Field(description="in our words")
    source: str = Field("", description="where the paper says it")
    own_definition: str | None = Field(
        None, description="what of the test is the project's own definition"
    )
    pooled: bool = Field(
        False, description="one verdict from the random-effects mean of all comparisons"
    )
    seeds: dict[str, Seeds] = Field({}, description="planned seeds per tier; else the tier's")
    comparisons: list[Comparison] = Field([], description="all must hold")
    not_run: dict[str, str] = Field(
        {}, description="tier (or `all`) to the reason why the claim cannot be tested there"
    )
    note: str = Field("", description="anything the reader should know")


class Paper(Strict):
    """A source with claims."""

    title: str = Field(description="title")
    authors: str = Field(description="authors")
    year: int = Field(ge=1900, le=2100, description="year")
    arxiv: str | None = Field(None, description="arXiv number")
    venue: str = Field("", description="where it appeared")
    summary: str = Field(description="what it says, in our words")
    deviations: list[str] = Field([], description="where this reproduction differs")
    base: Settings = Field(default_factory=Settings, description="settings of all experiments")
    experiments: dict[Name, Experiment] = Field({}, description="the experiments")
    claims: dict[Name, Claim] = Field(min_length=1, description="the claims")


class Tier(Strict):
    """Scale: dataset, network and budget that experiments start from."""

    title: str = Field(description="one line for the report")
    base: Settings = Field(description="settings of every run of the tier")
    seeds: Seeds = Field(description="planned seeds")
    block: Seeds = Field(5, description="seeds per cell")
    tuning: bool = Field(False, description="train what experiments declare under `tune`")
    shard_by: Literal["paper", "experiment"] = Field(
        "experiment", description="whose cells one job may hold"
    )
    cells_per_job: Annotated[int, Field(ge=1)] | None = Field(
        None, description="cells that one job trains; null puts all into one"
    )
    images_per_second: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="training speed per network that `plan` estimates with"
    )


class Config(Strict):
    """What to run. Command-line overrides change these keys."""

    tier: str = Field("smoke", description="a file of config/tiers")
    papers: list[str] | None = Field(None, description="papers to run; null runs all")
    seeds: Seeds | None = Field(None, description="seeds; null takes the tier's planned number")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where runs are trained")
    results: str = Field("results", description="folder of everything that is made")
    data: str = Field("results/data", description="folder of prepared datasets")
    checkpoints: Literal["parents", "all"] = Field(
        "parents", description="whose final weights are kept"
    )
    resume_seconds: float = Field(
        30.0, ge=0, description="seconds between resume points, taken at the end of an epoch"
    )
