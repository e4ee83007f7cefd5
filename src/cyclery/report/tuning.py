"""Tuning curves: validation accuracy over what was tuned, a line an arm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from cyclery.records.evidence import Arm, Tuned
from cyclery.report.chart import Chart, Page, colour, dash, panel_height, span
from cyclery.report.model import letter, metric_name

HEIGHT = 74.0
# Of an arm: its place, its points (factor, accuracy in %), and the one that was chosen.
_Line: TypeAlias = tuple[int, list[tuple[float, float]], tuple[float, float] | None]


def chart(slug: str, title: str, arms: Sequence[Arm]) -> Chart | None:
    """Draw the trials of all tuned arms; None where no factor had two values that trained.

    Where an arm tried several factors at once, the line of one shows the best over the others.
    """
    tuned = [(place, arm["tuned"]) for place, arm in enumerate(arms) if arm["tuned"]]
    names = list(dict.fromkeys(
        name for _, found in tuned for trial in found["trials"] for name in trial["factors"]
    ))  # fmt: skip
    panels: dict[str, list[_Line]] = {}
    for name in names:
        lines = [line for place, found in tuned if (line := _line(place, found, name))]
        if any(len(points) > 1 for _, points, _ in lines):
            panels[name] = lines
    if not panels:
        return None
    words = " and ".join(map(metric_name, panels))
    text = (
        f"Validation accuracy at the end of a trial by the factor on the arm's own {words}, the "
        "mean over the seeds of tuning. A diamond marks what was chosen; no test figure is read."
    )
    data: list[list[Any]] = [["quantity", "arm", "factor", "val_accuracy", "chosen"]]
    data += [
        [name, arms[place]["label"], *point, int(point == best)]
        for name, lines in panels.items() for place, points, best in lines for point in points
    ]  # fmt: skip
    tall = panel_height(max(map(len, panels.values())), HEIGHT)
    draw = partial(_draw, tall=tall, panels=panels)
    return Chart(slug, f"{title}: tuning", text, [tall] * len(panels), draw, data)


def _line(place: int, found: Tuned, name: str) -> _Line | None:
    """Return what an arm reached at each of its factors on a quantity."""
    best: dict[float, float] = {}
    for trial in found["trials"]:
        factor, score = trial["factors"].get(name), trial["val_accuracy"]
        if factor is not None and score is not None:
            best[factor] = max(100 * score, best.get(factor, 0.0))
    chosen = found["chosen"].get(name)
    mark = None if found["fallback"] or chosen not in best else (chosen, best[chosen])
    return (place, sorted(best.items()), mark) if best else None


def _draw(page: Page, tall: float, panels: dict[str, list[_Line]]) -> None:
    for name, lines in panels.items():
        every = [point for _, points, _ in lines for point in points]
        across = [factor for factor, _ in every]
        x = (min(across) / 1.15, max(across) * 1.15)
        y = span([score for _, score in every])
        head = f"val. acc. (%) by the factor on the {metric_name(name)} (log)"
        ax = page.panel(tall, head, x, y, log=True)
        for place, points, best in lines:
            factors, scores = zip(*points, strict=True)
            ax.line(factors, scores, colour(place), 1.3, dash(place))
            ax.dots(factors, scores, colour(place), 2.6)
            if best:
                ax.mark(*best, "diamond", colour(place), 6)
        ax.end_labels([(points[-1][1], letter(place), colour(place)) for place, points, _ in lines])
    page.foot("factor")
