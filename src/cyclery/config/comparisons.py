"""Models of a claim's comparisons: a difference of two arms, or a contrast of several.

A contrast is one number for each seed, so what is done with differences is done with it, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, model_validator

from cyclery.common.errors import HERE
from cyclery.common.strict import Strict, Text
from cyclery.config.contrasts import Flatness, Number, RankCorrelation, Trend
from cyclery.records.budgets import Ancestors, Measure
from cyclery.records.metrics import smaller_is_better

Kind = Literal["difference", "interaction", "trend", "ordering", "rank correlation", "flatness"]


class Group(NamedTuple):
    """Arms of one experiment that a comparison holds against each other, and their metrics."""

    experiment: str
    arms: tuple[str, ...]
    metrics: tuple[str, ...]


class BestOf(Strict):
    """The strictest of several arms, chosen on the validation split."""

    best_of: list[str] = Field(min_length=1, description="arms to choose from")
    by: str = Field("val_accuracy", description="the metric that chooses, averaged over seeds")


class Constant(Strict):
    """A fixed number instead of an arm."""

    constant: Number = Field(description="what the metric is compared with")


def _kind_of_against(value: Any) -> str | None:
    if isinstance(value, str):
        return "arm"
    if isinstance(value, dict):
        return "constant" if "constant" in value else "best_of"
    if isinstance(value, BestOf):
        return "best_of"
    return "constant" if isinstance(value, Constant) else None


Against = Annotated[
    Annotated[str, Tag("arm")]
    | Annotated[BestOf, Tag("best_of")]
    | Annotated[Constant, Tag("constant")],
    Discriminator(
        _kind_of_against,
        custom_error_type="against",
        custom_error_message="must be an arm, or keys and values with `best_of` or `constant`",
    ),
]


class Interaction(Strict):
    """A second difference that is taken from the first; what is not set is as in the first."""

    experiment: str | None = Field(None, description="where its arms are")
    arm: str | None = Field(None, description="the arm of the second difference")
    against: Against | None = Field(None, description="what that arm is compared with")
    metric: str | None = Field(None, description="its metric, in the same unit")

    @model_validator(mode="after")
    def _something(self) -> Interaction:
        if not any((self.experiment, self.arm, self.against, self.metric)):
            raise ValueError(
                f"{HERE}: must set `experiment`, `arm`, `against` or `metric`: a difference minus "
                "itself is 0."
            )
        if isinstance(self.against, Constant):
            raise ValueError(f"{HERE}.against: must be arms; a constant moves every seed alike.")
        return self


class PrintedEffect(Strict):
    """An effect as the paper prints it, oriented as the comparison is."""

    value: Number = Field(description="the effect: positive favours the claim")
    unit: str = Field(
        "pp",
        max_length=40,
        description="its unit; `pp` is percentage points, empty that of losses and of `log:`",
    )
    source: Text = Field(description="table or figure, data and network")
    confidence: Literal["read", "memory"] = Field(
        "read", description="`read` in the source, or recalled from `memory`"
    )


class Comparison(Strict):
    """One comparison of a claim: a difference (`arm`, `against`), or a contrast of arms."""

    experiment: str = Field(description="where the arms are")
    arm: str | None = Field(None, description="the arm that the claim favours")
    against: Against | None = Field(
        None, description="what it is compared with: an arm, `best_of` several, or a `constant`"
    )
    interaction: Interaction | None = Field(
        None, description="a second difference: the claim is that the first is larger"
    )
    trend: Trend | None = Field(
        None, description="the claim is that the metric rises along the arms; no `arm`, `against`"
    )
    ordering: Annotated[list[str], Field(min_length=3, max_length=100)] | None = Field(
        None, description="the claim is that each arm is better than the next; no `arm`, `against`"
    )
    rank_correlation: RankCorrelation | None = Field(
        None, description="the claim is that the metric rises with others; no `arm`, `against`"
    )
    flatness: Flatness | None = Field(
        None,
        description="the claim is that the metric is flatter over a grid of arms than over another "
        "side's; no `arm`, `against`",
    )
    metric: str = Field("test_accuracy", description="a final metric, or `curve@fraction`")
    against_metric: str | None = Field(
        None, description="metric of the other side, if it is another"
    )
    test: Literal["superiority", "equivalence", "non-inferiority"] = Field(
        "superiority", description="the test"
    )
    margin: Annotated[float, Field(ge=0, le=1e12)] = Field(
        0.0, description="smallest effect that counts; percentage points for accuracies"
    )
    lower_is_better: bool = Field(
        False,
        description="the claim is that the metric is smaller, or that it falls; must be said of a "
        "difference or an ordering where smaller values are better",
    )
    effect: Number | None = Field(
        None,
        description="the effect that the claim states, in the unit of the margin: the report says "
        "how many seeds would find it; null takes a `printed` one of that unit",
    )
    spread: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        None,
        description="standard deviation over seeds that goes with `effect`; null takes the "
        "measured one",
    )
    printed: PrintedEffect | None = Field(
        None, description="the effect that the paper prints; shown beside ours, never tested"
    )
    label: Text | None = Field(None, description="how the report calls it")
    equal: Measure = Field(
        "images",
        description="what the arms must have equal: samples of the first stream, the labelled ones "
        "(`images`), `updates`, images of all `views`, or images that pass a network `forwards`",
    )
    ancestors: Ancestors = Field(
        "started",
        description="whose share counts besides the arm's own: the runs that its weights have "
        "`started` from, `all` its ancestors, teachers too, or `none`",
    )
    unequal_budget: Text | None = Field(
        None, description="why the arms may have different amounts of what `equal` names"
    )

    @property
    def kind(self) -> Kind:
        """What is measured in each seed."""
        if self.interaction:
            return "interaction"
        if self.trend:
            return "trend"
        if self.ordering:
            return "ordering"
        if self.flatness:
            return "flatness"
        return "rank correlation" if self.rank_correlation else "difference"

    @model_validator(mode="after")
    def _one_kind(self) -> Comparison:
        keys = ("interaction", "trend", "ordering", "rank_correlation", "flatness")
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{HERE}: has {' and '.join(given)}; make them two comparisons.")
        if self.kind in ("difference", "interaction"):
            for key in ("arm", "against"):
                if getattr(self, key) is None:
                    raise ValueError(f"{HERE}.{key}: missing; it has no default.")
        else:
            for key in ("arm", "against", "against_metric"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{HERE}.{key}: has no place beside `{given[0]}`, which names the arms."
                    )
        if self.interaction and (self.against_metric or isinstance(self.against, Constant)):
            key = "against_metric" if self.against_metric else "against"
            raise ValueError(f"{HERE}.{key}: an interaction takes two arms and one metric.")
        if self.ordering and len(set(self.ordering)) < len(self.ordering):
            raise ValueError(f"{HERE}.ordering: an arm stands twice (found {self.ordering!r:.80}).")
        if self.flatness and self.lower_is_better:
            raise ValueError(
                f"{HERE}.lower_is_better: has no place beside `flatness`; exchange its two sides."
            )
        return self

    @model_validator(mode="after")
    def _strict_choice(self) -> Comparison:
        """Refuse a choice by which the claim wins: the best of several is best partly by luck.

        Against an arm that must be beaten this makes the claim harder, which is what it is for.
        """
        strict = self.lower_is_better == smaller_is_better(self.metric)
        where, chosen = f"{HERE}.against", None if strict else self.against
        if self.interaction:
            # The second difference is taken from the first, so what makes it small favours the
            # claim, unless the same choice among the same runs makes the first as small.
            first, second = self.differences()
            alike = (first.experiment, first.metric, first.against) == (
                second.experiment, second.metric, second.against,
            )  # fmt: skip
            if not alike and isinstance(second.against, BestOf):
                where, chosen = f"{HERE}.interaction.against", second.against
        if isinstance(chosen, BestOf):
            raise ValueError(
                f"{where}: `best_of` is chosen by the same runs, and its luck would favour this "
                "claim. Name the arm that the claim is about, or make a comparison of each."
            )
        return self

    @model_validator(mode="after")
    def _margin(self) -> Comparison:
        if self.test != "superiority" and self.margin == 0:
            raise ValueError(
                f"{HERE}.margin: must be above 0 for the test {self.test!r} (found {self.margin})."
            )
        if self.rank_correlation and self.margin >= 1:
            raise ValueError(
                f"{HERE}.margin: must be below 1 for a correlation (found {self.margin})."
            )
        if self.ordering and self.test == "equivalence":
            raise ValueError(
                f"{HERE}.test: an ordering has no equivalence; compare the arms one by one."
            )
        return self

    @model_validator(mode="after")
    def _effect(self) -> Comparison:
        if self.effect is None:
            if self.spread is not None and self.printed is None:
                raise ValueError(
                    f"{HERE}.spread: belongs to an `effect` or a `printed` one, which is missing."
                )
            return self
        bound = -self.margin if self.test == "non-inferiority" else self.margin
        within = self.test == "equivalence"
        if abs(self.effect) >= bound if within else self.effect <= bound:
            words = f"lie within +/-{bound:g}" if within else f"be above {bound:g}"
            raise ValueError(
                f"{HERE}.effect: must {words}, or no number of seeds shows the claim "
                f"(found {self.effect:g}). It is positive where the claim is right."
            )
        return self

    def differences(self) -> tuple[Comparison, ...]:
        """Return the differences of arms that it is made of, as comparisons of their own."""
        if self.kind == "difference":
            return (self,)
        if self.interaction is None:
            return ()
        second = {
            key: value
            for key in Interaction.model_fields
            if (value := getattr(self.interaction, key)) is not None
        }
        first = self.model_copy(update={"interaction": None})
        return first, first.model_copy(update=second)

    def listed(self) -> tuple[str, ...]:
        """Return the arms that are listed where there are no two sides of one arm each."""
        if self.trend:
            return tuple(self.trend.values)
        if self.flatness:
            return (*self.flatness.arms, *self.flatness.against)
        if self.rank_correlation:
            return tuple(self.rank_correlation.values or self.rank_correlation.arms or ())
        return tuple(self.ordering or ())

    def groups(self) -> tuple[Group, ...]:
        """Return the arms whose budgets must be equal, with the metrics that they need."""
        if found := self.listed():
            other = self.rank_correlation.metric if self.rank_correlation else None
            metrics = (self.metric, other) if other else (self.metric,)
            return (Group(self.experiment, found, metrics),)
        out = []
        for one in self.differences():
            metrics = (one.metric, one.against_metric) if one.against_metric else (one.metric,)
            if isinstance(one.against, BestOf):
                metrics = (*metrics, one.against.by)
            arms = (str(one.arm), *comparison_arms(one))
            out.append(Group(one.experiment, arms, metrics))
        return tuple(out)


def comparison_arms(comparison: Comparison) -> tuple[str, ...]:
    """Return the arms on the other side of a difference."""
    against = comparison.against
    if isinstance(against, BestOf):
        return tuple(against.best_of)
    return (against,) if isinstance(against, str) else ()
