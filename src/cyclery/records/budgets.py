"""What a comparison may hold equal between its arms, and whose share of it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from cyclery.records.metrics import value

Measure: TypeAlias = Literal["images", "updates", "views", "forwards"]
Ancestors: TypeAlias = Literal["started", "all", "none"]


class Words(NamedTuple):
    """How sentences say a measure."""

    noun: str
    do: str
    did: str


MEASURES: dict[Measure, Words] = {
    "images": Words("samples", "see", "saw"),
    "updates": Words("updates", "make", "made"),
    "views": Words("images of all views", "see", "saw"),
    "forwards": Words("forward passes", "make", "made"),
}
ANCESTORS: dict[Ancestors, str] = {
    "started": "the runs that it starts from",
    "all": "all its ancestors",
    "none": "",
}


def spent(record: Mapping[str, Any], measure: Measure) -> float | None:
    """Return what a run took of a measure; None where its record does not say.

    Records that are older than the count of forward passes have the images of all views instead.
    """
    found = value(record, measure)
    return value(record, "views") if found is None and measure == "forwards" else found
