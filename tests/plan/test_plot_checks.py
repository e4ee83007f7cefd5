"""Plots as papers declare them: their keys, names and metrics; and the evidence of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from factories.project import PAPER, TIER, refused, write

from cyclery.config.load import load
from cyclery.config.plots import Plot
from cyclery.evidence.plots import metrics, plots
from cyclery.plan.project_checks import check

Json = dict[str, Any]
PLOT: Json = {
    "title": "Accuracy against loss", "caption": "-", "experiments": "main", "x": "test_nll",
    "lines": {"both": ["plain", "fast"]},
}  # fmt: skip
NUMBERS: Json = {"x": None, "x_name": "rate", "lines": {"both": {"plain": 0.1, "fast": 0.2}}}


def project(root: Path, **changes: Any) -> None:
    """Write a project whose paper has one plot with these changes."""
    paper = copy.deepcopy(PAPER)
    paper["experiments"]["twin"] = {
        "title": "twin", "tiers": {"smoke": {}}, "arms": {"slow": {"lr": 0.01}},
    }  # fmt: skip
    paper["plots"] = {"p": {**copy.deepcopy(PLOT), **changes}}
    write(root, TIER, paper)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        NUMBERS,
        {"scale": "log", **NUMBERS},
        {"experiments": ["twin", "main"], "lines": {"a": ["fast", "twin/slow"], "b": ["plain"]}},
    ],
    ids=["metric", "numbers", "log", "of two experiments"],
)
def test_good_plots_pass(tmp_path: Path, changes: Json) -> None:
    project(tmp_path, **changes)
    check(load(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiments": "mian"}, "plots.p.experiments: unknown experiment 'mian'. Did you mean"),
        ({"experiments": []}, "plots.p.experiments"),
        ({"x": "test_nl"}, "plots.p.x: unknown metric 'test_nl'"),
        ({"y": "test_accuracy_best"}, "plots.p.y: 'test_accuracy_best' would choose the check"),
        ({"lines": {"a": ["plian"]}}, "plots.p.lines.a: unknown arm 'plian' in 'main'. Did you"),
        ({"lines": {"a": ["twin/fast"]}}, "plots.p.lines.a: unknown arm 'fast' in 'twin'"),
        ({"lines": {"a": ["twim/slow"]}}, "plots.p.lines.a: unknown experiment 'twim'"),
        ({"lines": {}}, "plots.p.lines"),
        ({"lines": {"a": []}}, "plots.p.lines.a"),
        ({"lines": {"a": 3}}, "plots.p.lines.a: must be a list of arms, or arms to numbers (found"),
        ({"lines": {"a": [1]}}, "plots.p.lines.a[0]: must be text (found 1)"),
        ({"lines": {"a": ["plain"] * 2}}, "lines.a: must name each arm once (found 'plain' twice)"),
        ({"y": ""}, "plots.p.y: unknown metric ''"),
        (
            {**NUMBERS, "lines": {"a": {"plain": float("nan")}}},
            "plots.p.lines.a.plain: must be a finite number (found nan)",
        ),
        ({"lines": {"a" * 49: ["plain"]}}, "must have at most 48 characters"),
        ({"x": None}, "plots.p: must have one of the keys `x` (a metric) and `x_name`"),
        ({"x_name": "rate"}, "plots.p: must have one of the keys `x` (a metric) and `x_name`"),
        (
            {"lines": {"a": {"plain": 1}}},
            "plots.p.lines.a: must be a list of arms beside `x` (found {'plain': 1.0})",
        ),
        (
            {**NUMBERS, "lines": {"a": ["plain"]}},
            "plots.p.lines.a: must be arms to numbers beside `x_name` (found ['plain'])",
        ),
        (
            {**NUMBERS, "scale": "log", "lines": {"a": {"plain": 0}}},
            "plots.p.lines.a: numbers must be above 0 on the scale 'log'",
        ),
        ({"scale": "rank"}, "plots.p.scale"),
    ],
)
def test_a_wrong_plot_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Json, said: str
) -> None:
    project(tmp_path, **changes)
    message = refused(tmp_path, capsys)
    assert said in message and "config/papers/one.yaml" in message


def test_the_evidence_has_the_arms_that_run_of_the_first_experiment_that_does(
    tmp_path: Path,
) -> None:
    lines = {
        "first": ["fast", "main/plain"],
        "second": ["slow", "main/fast"],
        "none": ["fast"],
    }
    project(tmp_path, experiments=["twin", "main"], lines=lines)
    paper = load(tmp_path).papers["one"]
    assert metrics(paper) == {"test_nll", "test_accuracy"}

    def shown(**ran: list[str]) -> Json:
        judged: Any = [
            {"id": name, "arms": [{"id": a} for a in arms]} for name, arms in ran.items()
        ]
        found = plots(paper, judged)
        return {
            each["label"]: [(p["experiment"], p["arm"]) for p in each["points"]]
            for plot in found for each in plot["lines"]
        }  # fmt: skip

    both = shown(main=["plain", "fast"], twin=["slow"])
    assert both == {"first": [("main", "plain")], "second": [("twin", "slow"), ("main", "fast")]}
    # Elsewhere the other one is that of the plot.
    alone = shown(main=["plain", "fast"])
    assert alone["none"] == [("main", "fast")]
    assert alone["first"] == [("main", "fast"), ("main", "plain")]
    assert shown(other=["plain"]) == {}


def test_numbers_stand_with_their_arms() -> None:
    plot = Plot.model_validate({**PLOT, **NUMBERS, "experiments": "main"})
    assert plot.points() == {"both": [("", "plain", 0.1), ("", "fast", 0.2)]}
