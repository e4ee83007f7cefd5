"""Interval plots: effect, confidence interval, zero and margin on one strip.

All places are per cent of the strip's width, so that one SVG stretches to any column.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from cyclery.records.claims import Row
from cyclery.report.model import compact, number, round_places
from cyclery.report.view_types import Strip, Tick


def _marks(comparison: Row) -> list[float]:
    """Return the margins as places on the effect's axis."""
    margin = comparison["margin"]
    if comparison["test"] == "equivalence":
        return [-margin, margin]
    return [-margin if comparison["test"] == "non-inferiority" else margin] if margin else []


def printed_effect(comparison: Row) -> float | None:
    """Return the effect that the paper prints, where it is in our unit."""
    found = comparison["printed"]
    return found["value"] if found and found["unit"] == comparison["unit"] else None


def _numbers(comparison: Row, printed: bool = False) -> list[float]:
    """Return every finite end that a plot of this comparison should show."""
    ends = list(comparison["ci95"] or ())
    others = [comparison["effect"], printed_effect(comparison) if printed else None]
    return [*ends, *_marks(comparison), *(v for v in others if v is not None)]


def domain(comparisons: Sequence[Row], centred: bool = False) -> tuple[float, float]:
    """Return the axis for some comparisons: zero is inside; `centred` puts it in the middle.

    A centred axis ends at three times the median reach: one wild interval must not flatten the
    others (it is drawn cut, with an arrow).
    """
    reach = [max(map(abs, found)) for item in comparisons if (found := _numbers(item))]
    if centred:
        limit = min(max(reach, default=1.0), 3 * median(reach)) if reach else 1.0
        limit = (limit or max(reach) or 1.0) * 1.05
        return -limit, limit
    values = [0.0, *(v for item in comparisons for v in _numbers(item, printed=True))]
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad


def strip(comparison: Row, axis: tuple[float, float]) -> Strip | None:
    """Return the places of one comparison's marks, or None where it has no effect."""
    effect = comparison["effect"]
    if effect is None:
        return None
    low, high = axis

    def place(value: float) -> float:
        return round(min(max(100 * (value - low) / (high - low), 1.0), 99.0), 2)

    ends = comparison["ci95"] or (effect, effect)
    marks = sorted(_marks(comparison))
    printed = printed_effect(comparison)
    return {
        "zero": place(0.0),
        "low": place(ends[0]),
        "high": place(ends[1]),
        "dot": place(effect),
        "dot_cut": not low <= effect <= high,
        "cut_low": ends[0] < low,
        "cut_high": ends[1] > high,
        "inner": [place(v) for v in comparison["ci90"]]
        if comparison["ci90"] and comparison["test"] == "equivalence"
        else None,
        "margins": [place(v) for v in marks if low <= v <= high],
        "zone": [place(v) for v in marks] if len(marks) == 2 else None,
        "printed": place(printed) if printed is not None and low <= printed <= high else None,
        "says": effect_text(comparison)
        + (f"; printed: {printed_text(comparison)}" if printed is not None else ""),
    }


def ticks(axis: tuple[float, float]) -> list[Tick]:
    """Return three to five round places on an axis, zero among them."""
    low, high = axis
    return [
        {"place": round(100 * (v - low) / (high - low), 2), "text": compact(v)}
        for v in round_places(axis, 4, steps=(1, 2, 5))
    ]


def digits_for(comparison: Row) -> int:
    """Return how many decimals an effect needs: two for points, more for small units."""
    reach = max(map(abs, _numbers(comparison)), default=1.0)
    return 2 if comparison["unit"] == "pp" or reach >= 1 else 4


def interval_text(comparison: Row, level: Literal["ci95", "bca95", "naive95"] = "ci95") -> str:
    """Return an interval in brackets, or nothing where there is none."""
    ends = comparison[level]
    if not ends:
        return ""
    digits = digits_for(comparison)
    low, high = (number(end, digits, sign=True) for end in ends)
    return f"[{low},\u00a0{high}]"


def printed_text(comparison: Row) -> str:
    """Return the effect that the paper prints, with its unit, or nothing."""
    found = comparison["printed"]
    if not found:
        return ""
    return f"{'+' if found['value'] > 0 else ''}{compact(found['value'])} {found['unit']}".strip()


def of_printed_text(comparison: Row) -> str:
    """Return the effect as a share of the printed one, with its interval, or nothing."""
    found = comparison["of_printed"]
    # A look that leaves an end of the interval open says nothing of a share.
    if not found or not found["ci95"]:
        return ""
    low, high = (number(100 * end, 0) for end in found["ci95"])
    return f"{number(100 * found['share'], 0)}\u00a0% [{low}, {high}]"


def effect_text(comparison: Row) -> str:
    """Return effect, unit and 95 % interval in one line."""
    if comparison["effect"] is None:
        return "no effect measured"
    effect = number(comparison["effect"], digits_for(comparison), sign=True)
    return " ".join(filter(None, (effect, comparison["unit"], interval_text(comparison))))
