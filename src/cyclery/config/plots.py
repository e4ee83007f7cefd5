"""Models of plots: one figure of arms against another, or against numbers, line by line."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, WithJsonSchema, model_validator

from cyclery.common.errors import HERE
from cyclery.common.strict import Strict, Text
from cyclery.config.contrasts import Number
from cyclery.config.tables import Several

_ARMS = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
    ]
}


def _kind(value: Any) -> str | None:
    if isinstance(value, list):
        return "<names>"
    return "<numbers>" if isinstance(value, dict) else None


Arms = Annotated[
    Annotated[dict[str, Number], Field(min_length=1, max_length=100), Tag("<numbers>")]
    | Annotated[list[str], Field(min_length=1, max_length=100), Tag("<names>")],
    Discriminator(
        _kind,
        custom_error_type="arms",
        custom_error_message="must be a list of arms, or arms to numbers",
    ),
    WithJsonSchema(_ARMS),
]
Label = Annotated[str, Field(min_length=1, max_length=48)]


class Point(NamedTuple):
    """An arm of a line; ``experiment`` is empty where it is that of the plot."""

    experiment: str
    arm: str
    number: float | None


class Plot(Strict):
    """A figure of some arms against another of theirs, or against a number of each."""

    title: Text = Field(max_length=80, description="one line")
    caption: Text = Field(description="what it shows, in our words")
    experiments: Several = Field(
        min_length=1, description="where its arms are; at a tier the first that runs there"
    )
    x: str | None = Field(
        None, description="the metric of the horizontal axis; null where lines give numbers"
    )
    x_name: Text | None = Field(
        None, max_length=60, description="what these numbers are, as `cost of labels`"
    )
    y: str = Field("test_accuracy", description="the metric of the vertical axis")
    scale: Literal["linear", "log"] = Field("linear", description="of the horizontal axis")
    lines: dict[Label, Arms] = Field(
        min_length=1,
        max_length=12,
        description="label to the arms of a line, in its order: a list, or arms to their numbers; "
        "`experiment/arm` names one of another experiment",
    )

    @model_validator(mode="after")
    def _one_axis(self) -> Plot:
        if (self.x is None) == (self.x_name is None):
            raise ValueError(
                f"{HERE}: must have one of the keys `x` (a metric) and `x_name` (of numbers)."
            )
        for label, arms in self.lines.items():
            if isinstance(arms, dict) != (self.x is None):
                wanted = "arms to numbers" if self.x is None else "a list of arms"
                key = "x_name" if self.x is None else "x"
                raise ValueError(
                    f"{HERE}.lines.{label}: must be {wanted} beside `{key}` (found {arms!r:.80})."
                )
            if twice := [arm for arm in arms if list(arms).count(arm) > 1]:
                raise ValueError(
                    f"{HERE}.lines.{label}: must name each arm once (found {twice[0]!r:.80} twice)."
                )
            numbers = arms.values() if isinstance(arms, dict) else ()
            if self.scale == "log" and min(numbers, default=1) <= 0:
                raise ValueError(
                    f"{HERE}.lines.{label}: numbers must be above 0 on the scale 'log' "
                    f"(found {arms!r:.80})."
                )
        return self

    def points(self) -> dict[str, list[Point]]:
        """Return the points of every line by its label."""
        return {
            label: [Point(*_named(arm), _number(arms, arm)) for arm in arms]
            for label, arms in self.lines.items()
        }


def _named(arm: str) -> tuple[str, str]:
    """Return the experiment that a name says, or an empty text, and the arm."""
    experiment, _, name = arm.rpartition("/")
    return experiment, name


def _number(arms: dict[str, float] | list[str], arm: str) -> float | None:
    return arms[arm] if isinstance(arms, dict) else None
