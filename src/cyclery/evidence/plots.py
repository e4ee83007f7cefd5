"""Plots of a paper at a tier: which arms are in each."""

from __future__ import annotations

from collections.abc import Iterable

from cyclery.config.models import Paper
from cyclery.records.evidence import Experiment, Plot, PlotLine, PlotPoint


def plots(paper: Paper, judged: Iterable[Experiment]) -> list[Plot]:
    """Return the plots of which something is among these experiments, whose numbers stand there.

    Arms that do not run at the tier are left out, and so are lines of none.
    """
    there = {experiment["id"]: {arm["id"] for arm in experiment["arms"]} for experiment in judged}
    found: list[Plot] = []
    for name, declared in paper.plots.items():
        own = next((each for each in declared.experiments if each in there), None)
        lines: list[PlotLine] = []
        for label, points in declared.points().items() if own else ():
            shown: list[PlotPoint] = [
                {"experiment": experiment or own or "", "arm": arm, "x": number}
                for experiment, arm, number in points
                if arm in there.get(experiment or own or "", ())
            ]
            if shown:
                lines.append({"label": label, "points": shown})
        if own and lines:
            found.append({
                "id": name, "title": declared.title, "caption": declared.caption,
                "experiment": own, "x": declared.x, "x_name": declared.x_name,
                "y": declared.y, "scale": declared.scale, "lines": lines,
            })  # fmt: skip
    return found


def metrics(paper: Paper) -> set[str]:
    """Return the metrics that a paper's plots show."""
    return {metric for plot in paper.plots.values() for metric in (plot.x, plot.y) if metric}
