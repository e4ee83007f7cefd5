"""Models of benchmark tables: a paper's table as it is printed, and where our figures come from.

A table is rows and columns of lines; a cell takes what its row, its column and the table say, and
``{name}`` in a text stands for a name of either. `cyclery.plan.table_cells` makes the cells.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from cyclery.common.errors import HERE, choices, nearest
from cyclery.common.strict import Strict, Text

# How a figure is shown: per cent of a fraction, what is missing to 100 %, or as it is.
Shows = Literal["percent", "error", "value"]
# Columns of config/reported/<paper>.csv that choose a printed figure.
FIELDS = ("table", "dataset", "labels", "architecture", "method", "metric")
MOST_LINES = 200


def _several(value: Any) -> Any:
    """Return a text alone as a list of one."""
    return [value] if isinstance(value, str) else value


def _named(value: Any) -> Any:
    """Return a line that is its head alone as a mapping."""
    return {"head": value} if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """Return numbers as texts: YAML reads the 40 of `labels: 40` as one."""
    if not isinstance(value, dict):
        return value
    return {k: f"{v}" if type(v) in (int, float) else v for k, v in value.items()}


def _fields(printed: dict[str, str]) -> dict[str, str]:
    for name in printed:
        if name not in FIELDS:
            raise ValueError(
                f"{HERE}: unknown field {name!r:.80}.{nearest(name, FIELDS)} Fields: "
                f"{choices(FIELDS)}."
            )
    return printed


_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_NUMBERS_TOO: dict[str, Any] = {
    "type": "object", "additionalProperties": {"type": ["string", "number"]},
}  # fmt: skip
_PRINTED_KEYS = {**_NUMBERS_TOO, "propertyNames": {"enum": list(FIELDS)}}

Several = Annotated[
    list[Text], BeforeValidator(_several), Field(max_length=20), WithJsonSchema(_TEXTS)
]
Printed = Annotated[
    dict[str, str], AfterValidator(_fields), BeforeValidator(_texts), WithJsonSchema(_PRINTED_KEYS)
]
# Patterns find names by letters, digits and underscores.
Names = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,63}$")], str],
    BeforeValidator(_texts),
    WithJsonSchema(_NUMBERS_TOO),
]
Same = dict[str, Text]

_EXPERIMENTS = (
    "experiments that ours come from; at a tier the first that runs there and has the arm"
)
_ARM = "the arm, or several, of which the first that runs; `experiment/arm` names both"
_SHOWS = "`percent` of a fraction, `error` (what is missing to 100 %), or the `value` as it is"
_PRINTED = "fields of config/reported/<paper>.csv that choose the printed figure"
_SAME = "tier to the sense in which ours have the paper's data and setting: there the two may be "
_SAME += "subtracted"


class Line(Strict):
    """A row or a column, or several under a common head; its head alone means a line like that."""

    head: Text = Field(max_length=120, description="as printed")
    of: list[Annotated[Line, BeforeValidator(_named)]] = Field(
        [], max_length=MOST_LINES, description="the lines under this head, which inherit the rest"
    )
    names: Names = Field({}, description="names that patterns may use, as `{name}`")
    experiments: Several | None = Field(
        None, description=f"{_EXPERIMENTS}; an empty list means none"
    )
    arm: Several = Field([], description=_ARM)
    metric: str | None = Field(None, description="our metric")
    shows: Shows | None = Field(None, description=_SHOWS)
    printed: Printed = Field({}, description=_PRINTED)
    by: Text | None = Field(None, description="who reproduced these figures, where others did")
    same: Same | None = Field(None, description=_SAME)
    competes: bool = Field(True, description="false for a line that is no rival, as a teacher's")
    empty: Text | None = Field(None, description="why nothing of ours stands here")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        """Allow the head alone."""
        return {"anyOf": [{"type": "string"}, handler.resolve_ref_schema(handler(core))]}


Lines = Annotated[
    list[Annotated[Line, BeforeValidator(_named)]], Field(min_length=1, max_length=MOST_LINES)
]


class BenchmarkTable(Strict):
    """A table of the paper, with ours beside what it prints."""

    title: Text = Field(max_length=80, description="as printed: Table 2")
    caption: Text = Field(description="what it shows, in our words")
    rows: Lines = Field(description="the rows, in printed order")
    columns: Lines = Field(description="the columns")
    methods: Literal["rows", "columns"] = Field(
        "rows", description="what is compared; the other lines are data and settings"
    )
    experiments: Several = Field([], description=_EXPERIMENTS)
    arm: Several = Field([], description=_ARM)
    metric: str = Field("test_accuracy", description="our metric")
    shows: Shows = Field("percent", description=_SHOWS)
    spread: Literal["sd", "none"] = Field(
        "sd", description="what the paper's figures have after a plus-minus sign"
    )
    printed: Printed = Field({}, description=_PRINTED)
    same: Same = Field({}, description=_SAME)
    note: str = Field("", description="what is comparable and what is not")
