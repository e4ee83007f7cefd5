"""Models of what several arms make of each seed: a trend, a rank correlation, flatness."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cyclery.common.errors import HERE
from cyclery.common.strict import Strict

# Beyond these, differences and squares of numbers are no longer exact, or no numbers at all.
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Values = Annotated[dict[str, Number], Field(min_length=3, max_length=100)]


def _ranks_differ(values: dict[str, float], where: str) -> None:
    if len(set(values.values())) < len(values):
        raise ValueError(
            f"{where}: must be a different number for each arm (found {values!r:.80})."
        )


class Trend(Strict):
    """A straight line through the arms of a seed, over the number that each stands for."""

    values: Values = Field(description="arms to the numbers that they stand for, three or more")
    scale: Literal["linear", "log", "rank"] = Field(
        "linear",
        description="the line is over the numbers (`linear`), their logarithms (`log`) or their "
        "ranks (`rank`)",
    )
    blocks: list[Annotated[list[str], Field(min_length=2, max_length=100)]] | None = Field(
        None,
        description="groups of the arms, each arm in one: their lines have one slope, and each its "
        "own height",
    )

    @model_validator(mode="after")
    def _numbers(self) -> Trend:
        for block in self._blocks():
            _ranks_differ({arm: self.values[arm] for arm in block}, f"{HERE}.values")
        if self.scale == "log" and min(self.values.values()) <= 0:
            raise ValueError(
                f"{HERE}.values: must be above 0 on the scale 'log' (found {self.values!r:.80})."
            )
        return self

    def _blocks(self) -> list[list[str]]:
        """Return the groups of arms, which together are all of them, each once."""
        if self.blocks is None:
            return [list(self.values)]
        if sorted(chain.from_iterable(self.blocks)) != sorted(self.values):
            raise ValueError(
                f"{HERE}.blocks: must have each arm of `values` in one group (found "
                f"{self.blocks!r:.80})."
            )
        return self.blocks


class RankCorrelation(Strict):
    """How far the arms of a seed stand in the order of other numbers; one of the first two keys."""

    values: Values | None = Field(None, description="arms to declared numbers, three or more")
    arms: Annotated[list[str], Field(min_length=3, max_length=100)] | None = Field(
        None, description="arms, three or more, with `metric`"
    )
    metric: str | None = Field(None, description="the other metric of these arms")
    coefficient: Literal["kendall", "spearman"] = Field(
        "kendall", description="Kendall's tau-b or Spearman's rho"
    )

    @model_validator(mode="after")
    def _one(self) -> RankCorrelation:
        if (self.values is None) == (self.arms is None):
            raise ValueError(f"{HERE}: must have one of the keys `values` and `arms`.")
        if (self.arms is None) != (self.metric is None):
            raise ValueError(f"{HERE}: `arms` and `metric` belong together.")
        if self.values is not None:
            _ranks_differ(self.values, f"{HERE}.values")
        return self


Points = Annotated[list[str], Field(min_length=3, max_length=50)]


class Flatness(Strict):
    """How flat the metric is over the points of a grid, against another side's at the same points.

    A point is an arm; the points of both sides have the same rates and decays, in the same order.
    """

    arms: Points = Field(description="the points of the side that the claim says is flatter")
    against: Points = Field(description="the points of the other side")
    by: Literal["share", "mean"] = Field(
        "share",
        description="what is measured of a side in each seed: the `share` of points near its best, "
        "or the `mean` of all minus the best",
    )
    within: Annotated[float, Field(gt=0, le=1e12)] = Field(
        1.0, description="how near is near, in the unit of the metric; for `share`"
    )

    @model_validator(mode="after")
    def _as_long(self) -> Flatness:
        if len(self.arms) != len(self.against):
            raise ValueError(
                f"{HERE}.against: must have as many points as `arms`, {len(self.arms)} (found "
                f"{len(self.against)})."
            )
        if self.by == "mean" and "within" in self.model_fields_set:
            raise ValueError(f"{HERE}.within: has no effect with `by: mean`; leave it out.")
        return self
