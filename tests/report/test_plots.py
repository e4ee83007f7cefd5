"""Plots of arms: what is drawn, where, and in which unit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import evidence as factory
from factories.page import Page, sound, unpacked

from cyclery.report import build as build_report
from cyclery.report import chart, model, plots, shapes, svg

Json = dict[str, Any]


def part() -> Json:
    """Return evidence with a plot over a metric, and one over numbers."""
    found: Json = factory.evidence(1, 4, 5)[0]
    [experiment] = found["experiments"]
    arms = [arm["id"] for arm in experiment["arms"]]
    for place, arm in enumerate(experiment["arms"]):
        spent = 2.0 * (place % 2 + 1)
        own = {"mean": spent, "sd": 0.1, "ci95": [spent - 0.5, spent + 1.5]}
        arm["metrics"]["train_epsilon"] = arm["metrics"]["test_accuracy"] | own

    def line(label: str, names: list[str], numbers: list[float | None]) -> Json:
        pairs = zip(names, numbers, strict=True)
        return {"label": label, "points": [
            {"experiment": experiment["id"], "arm": arm, "x": x} for arm, x in pairs]}  # fmt: skip

    plot = {"caption": "Students.", "experiment": experiment["id"], "y": "test_accuracy"}
    found["plots"] = [
        {**plot, "id": "privacy", "title": "Accuracy against epsilon", "x": "train_epsilon",
         "x_name": None, "scale": "log",
         "lines": [line("supervised", arms[:2], [None] * 2), line("other", arms[2:], [None] * 2)]},
        {**plot, "id": "cost", "title": "Accuracy against cost", "x": None, "x_name": "cost",
         "scale": "linear", "lines": [line("all", arms, [1.0, 3.0, 5.0, 9.0])]},
    ]  # fmt: skip
    return found


def charts(given: Json) -> list[chart.Chart | None]:
    data = model.complete(given)
    known = {(e["id"], arm["id"]): arm for e in data["experiments"] for arm in e["arms"]}
    return [plots.chart(plot["id"], plot, known) for plot in data["plots"]]


def test_the_data_are_the_arms_means_and_intervals_in_the_units_of_the_axes() -> None:
    given = part()
    privacy, cost = charts(given)
    assert privacy is not None and cost is not None
    arms = given["experiments"][0]["arms"]
    head, *rows = privacy.data
    assert head[:3] == ["line", "arm", "epsilon"] and head[5] == "test accuracy (%)"
    assert [row[0] for row in rows] == ["supervised"] * 2 + ["other"] * 2
    for row, arm in zip(rows, arms, strict=True):
        x, y = arm["metrics"]["train_epsilon"], arm["metrics"]["test_accuracy"]
        assert row[1] == arm["label"] and row[2:5] == [x["mean"], *x["ci95"]]
        assert row[5:] == pytest.approx([100 * v for v in (y["mean"], *y["ci95"])])
    assert [row[2:5] for row in cost.data[1:]] == [[x] * 3 for x in (1.0, 3.0, 5.0, 9.0)]
    assert "Mean of the seeds with its 95 % interval" in privacy.description


def test_what_is_drawn_lies_where_the_numbers_are() -> None:
    privacy, cost = charts(part())
    assert privacy is not None and cost is not None
    for found, log in ((privacy, True), (cost, False)):
        [panel] = found.page.panels
        assert panel.log is log
        rows = found.data[1:]
        (left, right), (low, high) = panel.x, panel.y
        assert all(left < v < right for row in rows for v in row[2:5])
        assert all(low < v < high for row in rows for v in row[5:])
        dots = [s for s in found.page.shapes if isinstance(s, shapes.Stroke) and s.width == 4.5]
        drawn = np.concatenate([point for dot in dots for point in dot.lines])
        wanted = panel.at([row[2] for row in rows], [row[5] for row in rows])
        assert sorted(map(tuple, drawn.round(6))) == sorted(map(tuple, wanted.round(6)))
    text = svg.alone(privacy.page).decode()
    assert ">supervised<" in text and ">other<" in text and "epsilon (log)" in text


@pytest.mark.parametrize("spent", [2.0, 14.0, 600.0])
def test_a_logarithmic_axis_has_ticks_however_short_it_is(spent: float) -> None:
    given = part()
    for place, arm in enumerate(given["experiments"][0]["arms"]):
        arm["metrics"]["train_epsilon"] |= {"mean": spent * (1 + place / 2), "ci95": None}
    found = charts(given)[0]
    assert found is not None
    [panel] = found.page.panels
    low, high = panel.x
    assert len([tick for tick in panel.ticks if low <= tick <= high]) >= 3


def test_arms_without_a_figure_are_left_out() -> None:
    given = part()
    first, second, *others = given["experiments"][0]["arms"]
    del first["metrics"]["train_epsilon"]
    # An interval that a look leaves open has no place on an axis.
    second["metrics"]["train_epsilon"]["ci95"] = [None, 4.0]
    privacy, cost = charts(given)
    assert privacy is not None and cost is not None
    assert len(privacy.data) == 4 and privacy.data[1][2:5] == [4.0] * 3
    assert len(cost.data) == 5
    # One that goes below 0 leaves the arm its place, and the axis on the left.
    others[0]["metrics"]["train_epsilon"]["ci95"] = [-1.0, 3.0]
    below = charts(given)[0]
    assert below is not None and below.data[2][3:5] == [-1.0, 3.0]
    [panel] = below.page.panels
    assert 0 < panel.x[0] < 4
    bars = [s for s in below.page.shapes if isinstance(s, shapes.Stroke) and s.width == 1.0]
    assert min(line[:, 0].min() for bar in bars for line in bar.lines) == panel.box[0]
    for arm in (second, *others):
        arm["metrics"]["train_epsilon"] |= {"mean": 0.0, "ci95": None}
    # 0 has no logarithm.
    assert charts(given)[0] is None


def test_plots_stand_first_among_the_figures_of_their_experiment(tmp_path: Path) -> None:
    build_report([part()], tmp_path, "smoke")
    text = unpacked((tmp_path / "index.html").read_text("utf-8"))
    sound(Page(text))
    titles = re.findall(r"<title id=\"[^\"]+-t\">([^<]+)</title>", text)
    assert titles[:2] == ["Accuracy against epsilon", "Accuracy against cost"]
    made = {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    slugs = re.findall(r'id="([\w-]+(?:privacy|cost))-d"', text)
    assert len(slugs) == 2
    assert made.issuperset(slugs)
