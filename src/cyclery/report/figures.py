"""Figures of an experiment and of a range test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from cyclery.records.evidence import Arm, Curve, RangeTest, Schedule
from cyclery.report.chart import (
    Chart,
    Page,
    colour,
    dash,
    drawable,
    floats,
    panel_height,
    span,
)
from cyclery.report.download import wide
from cyclery.report.model import compact, is_share, letter, metric_name
from cyclery.report.shapes import INK
from cyclery.report.view_types import ComparisonView

# A quantity, the arms of each of its lines, and all of its values.
_Panel: TypeAlias = tuple[str, list[tuple[list[int], Schedule]], list[float]]
PANELS = 4  # of learning curves; what else was logged is in the data


def _order(name: str) -> tuple[int, str]:
    first = ("test_accuracy", "val_accuracy", "test_balanced_accuracy")
    return (first.index(name) if name in first else len(first), name)


def _epochs(found: Sequence[Curve] | Sequence[Schedule]) -> tuple[float, float]:
    """Return the first and last epoch of some curves, never equal."""
    low = min(c["epoch"][0] for c in found)
    high = max(c["epoch"][-1] for c in found)
    return float(low), float(high if high > low else low + 1)


def curves(slug: str, title: str, found: list[Curve], arms: list[Arm]) -> Chart | None:
    """Draw every logged quantity over the epochs: the mean of the seeds with its band."""
    place = {arm["id"]: i for i, arm in enumerate(arms)}
    found = [c for c in found if c["arm"] in place and c["epoch"] and c["mean"]]
    names = sorted({c["metric"] for c in found}, key=_order)
    # The validation curve follows the test curve so closely that it would be the same picture.
    names = [n for n in names if "test_" + n.removeprefix("val_") not in names or n[:4] != "val_"]
    if not names:
        return None
    names, rest = names[:PANELS], names[PANELS:]
    tall = panel_height(max(sum(c["metric"] == name for c in found) for name in names), 74)
    words = ", ".join(map(metric_name, names))
    text = (
        f"{words[:1].upper()}{words[1:]} by epoch: mean of the seeds with its 95 % band. "
        "Vertical axes of accuracy and loss are fitted to the last 90 % of the run."
    )
    text += f" In the data alone: {', '.join(map(metric_name, rest))}." if rest else ""
    rows = wide(
        ("metric", "epoch"),
        (
            ((c["metric"], epoch), c["arm"], values)
            for name in (*names, *rest) for c in found if c["metric"] == name
            for epoch, *values in zip(c["epoch"], c["mean"], c["low"], c["high"], strict=False)
        ),
        ("mean", "low", "high"),
    )  # fmt: skip
    draw = partial(_draw_curves, tall=tall, names=names, found=found, place=place)
    return Chart(slug, f"{title}: learning curves", text, [tall] * len(names), draw, rows)


def _draw_curves(
    page: Page, tall: float, names: list[str], found: list[Curve], place: dict[str, int]
) -> None:
    x = _epochs(found)
    for name in names:
        scale = 100.0 if is_share(name) else 1.0
        lines = []
        for curve in (c for c in found if c["metric"] == name):
            size = min(len(curve["epoch"]), len(curve["mean"]))
            mean = scale * floats(curve["mean"][:size])
            bounds = [scale * floats(ends) for ends in (curve["low"], curve["high"])]
            lines.append((place[curve["arm"]], floats(curve["epoch"][:size]), mean, bounds))
        # The first climb would flatten what differs; what is logged in training acts there too.
        late = x[0] + (0.0 if name.startswith("train_") else 0.1) * (x[1] - x[0])
        shown = [
            v for _, epoch, mean, bounds in lines for part in (mean, *bounds)
            if part.size == epoch.size for v in part[epoch >= late]
        ]  # fmt: skip
        ax = page.panel(tall, metric_name(name) + (" (%)" if scale > 1 else ""), x, span(shown))
        for i, epoch, mean, (low, high) in lines:
            if low.size == high.size == epoch.size:
                ax.band(epoch, low, high, colour(i))
            ax.line(epoch, mean, colour(i), 1.3, dash(i))
        ax.end_labels([(float(m[-1]), letter(i), colour(i)) for i, _, m, _ in lines])
    page.foot("epoch")


def _same(found: list[Schedule], place: dict[str, int]) -> list[tuple[list[int], Schedule]]:
    """Group the schedules that are equal: arms that share a line share its label."""
    groups: dict[tuple[Any, ...], tuple[list[int], Schedule]] = {}
    for item in found:
        key = (tuple(item["epoch"]), tuple(item["value"]))
        groups.setdefault(key, ([], item))[0].append(place[item["arm"]])
    return list(groups.values())


def schedules(
    slug: str, title: str, found: list[Schedule], arms: list[Arm]
) -> tuple[Chart | None, list[str]]:
    """Draw each quantity that changes or differs between arms; return the others as words."""
    place = {arm["id"]: i for i, arm in enumerate(arms)}
    found = [s for s in found if s["arm"] in place and s["epoch"] and s["value"]]
    panels, constant = [], []
    for name in sorted({s["quantity"] for s in found}):
        groups = _same([s for s in found if s["quantity"] == name], place)
        values = [v for _, item in groups for v in item["value"]]
        if len(set(values)) == 1 and len({a for i, _ in groups for a in i}) == len(arms):
            constant.append(f"{metric_name(name)} {compact(values[0])}")
        else:
            panels.append((name, groups, values))
    if not panels:
        return None, constant
    tall = panel_height(max(len(groups) for _, groups, _ in panels), 61)
    words = ", ".join(metric_name(name) for name, _, _ in panels)
    text = f"{words[:1].upper()}{words[1:]} by epoch, per arm."
    drawn = {name for name, _, _ in panels}
    rows = wide(
        ("quantity", "epoch"),
        (
            ((s["quantity"], epoch), s["arm"], [value])
            for s in found if s["quantity"] in drawn
            for epoch, value in zip(s["epoch"], s["value"], strict=False)
        ),
    )  # fmt: skip
    draw = partial(_draw_schedules, tall=tall, panels=panels, x=_epochs(found), count=len(arms))
    heights = [tall] * len(panels)
    return Chart(slug, f"{title}: schedules", text, heights, draw, rows), constant


def _draw_schedules(
    page: Page, tall: float, panels: list[_Panel], x: tuple[float, float], count: int
) -> None:
    """Draw the panels of the schedules of ``count`` arms."""
    for name, groups, values in panels:
        ax = page.panel(tall, metric_name(name), x, span(values))
        labels = []
        for members, item in groups:
            size = min(len(item["epoch"]), len(item["value"]))
            shade = INK if len(members) == count > 1 else colour(members[0])
            epochs, shown = floats(item["epoch"][:size]), floats(item["value"][:size])
            ax.line(epochs, shown, shade, 1.2, dash(members[0]))
            text = "all" if len(members) == count > 1 else " ".join(map(letter, members[:3]))
            text += "\u2026" if 3 < len(members) < count else ""
            labels.append((float(shown[-1]), text, shade))
        ax.end_labels(labels)
    page.foot("epoch")


def _letters(item: ComparisonView, place: dict[str, int]) -> str:
    """Return the two arms' keys as a difference: A minus E."""
    pair = (item["arm"], item["chosen"] or item["against"])
    known = all(name in place for name in pair)
    if not known or item["kind"] != "difference":
        return ""
    return " \u2212 ".join(letter(place[name]) for name in pair) + "  "


def paired(slug: str, title: str, items: list[ComparisonView], arms: list[Arm]) -> Chart | None:
    """Draw each comparison's difference per seed as a dot, with the mean and its 95 % interval."""
    place = {arm["id"]: i for i, arm in enumerate(arms)}
    items = [c for c in items if c["differences"]]
    units = sorted({c["unit"] for c in items})
    if not items:
        return None
    by_unit = [(unit, [c for c in items if c["unit"] == unit]) for unit in units]
    text = "Each seed's difference (dot), mean (diamond), 95 % interval (bar)."
    data: list[list[Any]] = [["claim", "arm", "against", "metric", "unit", "seed", "difference"]]
    data += [
        [c["claim"], c["arm"], c["chosen"] or c["against"], c["metric"], c["unit"], seed, value]
        for c in items
        for seed, value in zip(c["seeds"], c["differences"], strict=False)
    ]
    heights = [31 * len(rows) for _, rows in by_unit]
    draw = partial(_draw_paired, by_unit=by_unit, place=place)
    return Chart(slug, f"{title}: paired differences", text, heights, draw, data)


def _draw_paired(
    page: Page, by_unit: list[tuple[str, list[ComparisonView]]], place: dict[str, int]
) -> None:
    for unit, rows in by_unit:
        values = [0.0, *(d for c in rows for d in c["differences"])]
        values += [v for c in rows for v in c["ci95"] or ()]
        word = "difference" if all(c["kind"] == "difference" for c in rows) else "contrast"
        head = f"{word} ({unit})" if unit else word
        # Rows from the top down.
        ax = page.panel(31 * len(rows), head, span(values), (len(rows), 0), vertical=False)
        zero = [([0.0, 0.0], [r + 0.42, r + 0.9]) for r in range(len(rows))]
        ax.lines(zero, INK, 0.8)
        for row, item in enumerate(rows):
            shade = colour(place.get(item["arm"], 6))
            found = floats(item["differences"])
            offset = 0.66 + 0.1 * (np.arange(found.size) % 3 - 1)
            ax.dots(found, row + offset, shade, 3.6, 0.55)
            if item["ci95"]:
                ax.line(item["ci95"], [row + 0.66] * 2, INK, 1.6)
            if item["effect"] is not None:
                ax.mark(item["effect"], row + 0.66, "diamond", INK, 4)
            words = f"{item['claim']}  {_letters(item, place)}{item['says_label']}"
            ax.words(ax.x[0], row + 0.08, drawable(words, 64), size=7.8, at="top")


def _median(rows: list[list[float]], size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the median over seeds at each rate, NaN where no seed has a value."""
    table = np.full((max(len(rows), 1), size), np.nan)
    for line, row in zip(table, rows, strict=False):
        found = floats(row)[:size]
        line[: found.size] = found
    out = np.full(size, np.nan)
    some = np.isfinite(table).any(axis=0)
    out[some] = np.nanmedian(table[:, some], axis=0)
    return out


def range_test(slug: str, test: RangeTest) -> Chart | None:
    """Draw accuracy and loss against the rate: seeds thin, their median bold, bounds shaded."""
    rates = floats(test["lr"])
    order = np.isfinite(rates)
    read = (("accuracy", test["accuracy"]), ("loss", test["loss"]))
    panels = [(name, [row for row in rows if row]) for name, rows in read if any(rows)]
    if not panels or order.sum() < 2:
        return None
    low, high = float(np.nanmin(rates)), float(np.nanmax(rates))
    text = (
        f"Range test over learning rates {compact(low)} to {compact(high)}, {len(test['seeds'])} "
        f"seeds: bounds {compact(test['base'])} and {compact(test['max'])}."
    )
    data = wide(
        ("learning rate",),
        (
            ((rate,), f"{name} seed {seed}", [value])
            for name, lines in read if any(lines)
            for seed, line in zip(test["seeds"], lines, strict=False)
            for rate, value in zip(test["lr"], line, strict=False)
        ),
    )  # fmt: skip
    draw = partial(_draw_range, test=test, panels=panels, low=low, high=high)
    return Chart(slug, f"Range test: {test['label']}", text, [74] * len(panels), draw, data)


def _draw_range(
    page: Page,
    test: RangeTest,
    panels: list[tuple[str, list[list[float]]]],
    low: float,
    high: float,
) -> None:
    rates = floats(test["lr"])
    log = low > 0
    x = (low, high) if log else span([low, high], 0.02)
    for name, rows in panels:
        scale = 100.0 if name == "accuracy" else 1.0
        middle = scale * _median(rows, rates.size)
        limits = span([*middle, 0.0]) if scale > 1 else span(_calm(middle))
        ax = page.panel(74, f"{name} (%)" if scale > 1 else name, x, limits, log=log)
        for row in rows:
            line = scale * floats(row)[: rates.size]
            ax.line(rates[: line.size], line, colour(6), 0.5, opacity=0.6)
        ax.line(rates, middle, colour(0), 1.5)
        if test["base"] is not None and test["max"] is not None:
            ax.column(test["base"], test["max"], colour(5), 0.18)
            for bound in (test["base"], test["max"]):
                ax.line([bound, bound], ax.y, colour(0), 0.9, (3, 2))
        for i, value in enumerate(test["readings"].values()):
            if name == panels[-1][0] and value is not None and x[0] <= value <= x[1]:
                ax.line([value, value], ax.y, INK, 0.6, (1, 1.5))
                ax.words(value, ax.y[1], str(i + 1), size=7.5, side="middle")
    page.foot("learning rate (log)" if log else "learning rate")


def _calm(loss: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Return a loss curve cut at 1.5 times its start, so that a blow-up does not flatten it."""
    found = loss[np.isfinite(loss)]
    return [float(v) for v in found if v <= 1.5 * found[0]]
