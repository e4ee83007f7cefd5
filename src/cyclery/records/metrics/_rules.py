"""Summaries of the evaluations during training, by the suffix of a metric's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from cyclery.records.metrics._reading import number

LAST = 20
BEST = "_best"
RULES: dict[str, Callable[[list[float]], float]] = {
    f"_median{LAST}": median, f"_mean{LAST}": fmean, BEST: max,
}  # fmt: skip


def summary(values: Sequence[Any], rule: str) -> float | None:
    """Return what a rule makes of a curve's values; None where one that it takes is missing.

    Where there are few evaluations, 20 of them would reach back to where the run still learns.
    """
    late = values if rule == BEST else values[-min(LAST, -(-len(values) // 4)) :]
    numbers = [number(each) for each in late]
    known = [each for each in numbers if each is not None]
    return RULES[rule](known) if known and len(known) == len(numbers) else None
