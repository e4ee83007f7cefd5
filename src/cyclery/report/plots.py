"""Plots of arms: one figure against another, or against numbers, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from cyclery.records.evidence import Arm, Plot
from cyclery.report.chart import KEY as KEY_HEIGHT
from cyclery.report.chart import Chart, Page, colour, dash, span
from cyclery.report.model import is_share, metric_name

HEIGHT = 150.0
# Arms by experiment and name.
Arms = Mapping[tuple[str, str], Arm]


class Place(NamedTuple):
    """A value with the ends of its 95 % interval, itself where it has none."""

    at: float
    low: float
    high: float


class Mark(NamedTuple):
    """A point of a line; ``label`` is that of its arm."""

    label: str
    x: Place
    y: Place


def chart(slug: str, plot: Plot, arms: Arms) -> Chart | None:
    """Draw a plot: means over seeds with their 95 % intervals; None where no arm has both."""
    lines = {line["label"]: list(_marks(line["points"], plot, arms)) for line in plot["lines"]}
    lines = {label: marks for label, marks in lines.items() if marks}
    if not lines:
        return None
    x, y = plot["x_name"] or _name(plot["x"] or ""), _name(plot["y"])
    text = f"{plot['caption']} Mean of the seeds with its 95 % interval; lines join arms."
    data: list[list[Any]] = [
        ["line", "arm", x, f"{x} low", f"{x} high", y, f"{y} low", f"{y} high"],
        *([label, mark.label, *mark.x, *mark.y] for label, marks in lines.items()
          for mark in marks),
    ]  # fmt: skip
    draw = partial(_draw, lines=lines, x=x, y=y, log=plot["scale"] == "log")
    return Chart(slug, plot["title"], text, [HEIGHT + KEY_HEIGHT * len(lines)], draw, data)


def _name(metric: str) -> str:
    return metric_name(metric) + (" (%)" if is_share(metric) else "")


def _marks(points: Iterable[Any], plot: Plot, arms: Arms) -> Iterable[Mark]:
    """Yield the points that have both figures."""
    for point in points:
        arm = arms.get((point["experiment"], point["arm"]))
        if arm is None:
            continue
        number = point["x"]
        x = Place(number, number, number) if number is not None else _place(arm, plot["x"] or "")
        y = _place(arm, plot["y"])
        if x and y and (plot["scale"] == "linear" or x.at > 0):
            yield Mark(arm["label"], x, y)


def _place(arm: Arm, metric: str) -> Place | None:
    """Return a metric of an arm as it is drawn: shares in per cent."""
    found = arm["metrics"].get(metric)
    if found is None:
        return None
    scale, mean = (100.0 if is_share(metric) else 1.0), found["mean"]
    low, high = found["ci95"] or (mean, mean)
    if low is None or high is None:
        low = high = mean
    return Place(scale * mean, scale * low, scale * high)


def _draw(page: Page, lines: Mapping[str, list[Mark]], x: str, y: str, log: bool) -> None:
    marks = [mark for each in lines.values() for mark in each]
    across = [end for mark in marks for end in mark.x if end > 0 or not log]
    limits = (min(across) / 1.15, max(across) * 1.15) if log else span(across)
    along = [end for mark in marks for end in (mark.y.low, mark.y.high)]
    ax = page.panel(HEIGHT, y, limits, span(along), log=log)
    for place, found in enumerate(lines.values()):
        shade = colour(place)
        bars = [([m.x.at] * 2, [m.y.low, m.y.high]) for m in found]
        # What has no logarithm lies beyond the axis.
        bars += [([max(m.x.low, limits[0]), m.x.high], [m.y.at] * 2) for m in found
                 if m.x.low < m.x.high]  # fmt: skip
        ax.lines(bars, shade, 1.0)
        across, along = [m.x.at for m in found], [m.y.at for m in found]
        ax.line(across, along, shade, 1.3, dash(place))
        ax.dots(across, along, shade, 4.5)
    page.foot(f"{x} (log)" if log else x)
    page.key([(label, colour(place), dash(place)) for place, label in enumerate(lines)])
