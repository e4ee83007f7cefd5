"""Check the names that plots use."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cyclery.config.models import Paper
from cyclery.plan.checked_names import unknown, unusable_metric


def names(paper: Paper, own: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with plots, whatever the tier; ``own`` are figures of some arms."""
    for key, plot in paper.plots.items():
        where = f"plots.{key}"
        known = [each for each in plot.experiments if each in paper.experiments]
        for name in plot.experiments:
            if name not in known:
                yield unknown(f"{where}.experiments", name, paper.experiments, "experiment")
        for axis in ("x", "y"):
            if (metric := getattr(plot, axis)) is not None:
                yield from unusable_metric(metric, False, f"{where}.{axis}", own=own)
        for label, points in plot.points().items():
            at = f"{where}.lines.{label}"
            for experiment, arm, _ in points:
                if experiment and experiment not in paper.experiments:
                    yield unknown(at, experiment, paper.experiments, "experiment")
                    continue
                among = [experiment] if experiment else known
                arms = {name: None for each in among for name in paper.experiments[each].arms}
                if among and arm not in arms:
                    yield unknown(at, arm, arms, "arm", ", ".join(among))
