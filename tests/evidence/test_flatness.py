"""Flatness over a grid: its figures, the test of their difference, claims and reports of it."""

from __future__ import annotations

import copy
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.project import PAPER, TIER, arms, comparison, refused, write
from factories.record import Json, Records, claim, diverge, experiment, key
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.config.load import load
from cyclery.evidence import build as evidence
from cyclery.evidence.comparison import Case
from cyclery.evidence.stats import alpha_spending, contrasts
from cyclery.evidence.stats.flatness import RESAMPLES, Resampled, flatness, resampling
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.evidence.verdicts import decide, judge
from cyclery.plan.project_checks import check
from cyclery.report import model, view

RNG = np.random.default_rng(3)
OWN, OTHER = ("a", "b", "c", "d"), ("w", "x", "y", "z")
GRIDS: Json = {"flatness": {"arms": list(OWN), "against": list(OTHER)}}
# One side has points as good as each other, the other a slope of three points.
Y = {name: list(80 + RNG.normal(0, 0.3, 12)) for name in OWN} | {
    name: list(79 + i + RNG.normal(0, 0.3, 12)) for i, name in enumerate(OTHER)
}


def judged(
    values: dict[str, Any],
    planned: int | None = None,
    diverged: tuple[str, int] | None = None,
    **declared: Any,
) -> Json:
    filed: Records = {}
    exp = experiment("e", values, filed)
    exp["arms"] = [{**arm, "classes": 10} for arm in exp["arms"]]
    if diverged:
        diverge(filed, key("e", *diverged))
    one = {"experiment": "e", "metric": "test_accuracy", "test": "superiority", "margin": 0.0}
    [found] = judge([claim({**one, **declared}, planned_seeds=planned)], "smoke", [exp], filed)
    [row] = found["comparisons"]
    return dict(row)


def by_hand(values: dict[str, list[float]], by: str, within: float) -> np.ndarray:
    """Return the differences in flatness of every seed, point by point."""
    found = []
    for seed in range(len(values["a"])):
        sides = []
        for names in (OWN, OTHER):
            grid = [values[name][seed] for name in names]
            near = sum(max(grid) - one <= within for one in grid) / len(grid)
            sides.append(near if by == "share" else sum(grid) / len(grid) - max(grid))
        found.append(sides[0] - sides[1])
    return np.array(found)


@pytest.mark.parametrize(("by", "within"), [("share", 1.0), ("share", 2.5), ("mean", 1.0)])
@pytest.mark.parametrize("seeds", [6, 12])
def test_a_verdict_by_hand(by: str, within: float, seeds: int) -> None:
    given = {name: column[:seeds] for name, column in Y.items()}
    declared = {**GRIDS["flatness"], "by": by, "within": within}
    row, x = judged(given, flatness=declared), by_hand(given, by, within)
    assert row["differences"] == pytest.approx(list(x))
    assert row["effect"] == pytest.approx(x.mean()) and x.mean() > 0.1
    assert row["unit"] == ("pp" if by == "mean" else "") and row["kind"] == "flatness"
    assert row["columns"] == [name.upper() for name in (*OWN, *OTHER)]
    usual = scipy_stats.ttest_1samp(x, 0)
    low, high = usual.confidence_interval()
    p = usual.pvalue
    if seeds >= 10:
        means = np.sort([np.dot(weights, x) for weights in resampling(seeds)])
        # The 50th of 2,000 from either end.
        low, high = min(low, means[49]), max(high, means[-50])
        p = max(p, 2 * np.mean(means <= 0))
    assert row["ci95"] == pytest.approx((low, high))
    assert row["p"] == pytest.approx(p)
    assert row["verdict"] == "reproduced"
    turned = {"arms": list(OTHER), "against": list(OWN), "by": by, "within": within}
    assert judged(given, flatness=turned)["verdict"] == "contradicted"


def test_the_best_is_the_smallest_where_smaller_is_better() -> None:
    y = np.array([[0.2, 0.3, 0.9], [0.4, 0.4, 0.5]])
    np.testing.assert_allclose(flatness(y, "share", 0.15, smaller_is_better=True), [2 / 3, 1])
    np.testing.assert_allclose(flatness(y, "mean", 1, smaller_is_better=True), [-0.8 / 3, -0.1 / 3])
    np.testing.assert_allclose(flatness(y, "share", 0.15), [1 / 3, 1])
    # A point at the distance itself counts, whatever a subtraction has rounded.
    assert flatness(np.array([81.3, 80.3, 70.0]), "share", 1.0) == pytest.approx(2 / 3)


def test_looks_and_divergence_are_as_of_other_contrasts() -> None:
    row = judged(Y, 20, **GRIDS)
    assert (row["look"]["number"], row["n"]) == (2, 10)
    x = by_hand({name: column[:10] for name, column in Y.items()}, "share", 1.0)
    level = alpha_spending.levels(0.025, 20)[1]
    means = np.sort(resampling(10) @ x)
    reach = float(scipy_stats.t.isf(level, 9) * scipy_stats.sem(x))
    at = int(np.ceil(level * RESAMPLES)) - 1
    assert row["ci95"][0] == pytest.approx(min(x.mean() - reach, means[at]))
    # An arm that diverged is worth a guess, so its side is less flat there.
    row = judged(Y, diverged=("a", 3), **GRIDS)
    filled = {**Y, "a": [10.0 if s == 3 else v for s, v in enumerate(Y["a"])]}
    assert row["differences"] == pytest.approx(list(by_hand(filled, "share", 1.0)))


def test_sides_without_any_spread_are_open() -> None:
    values = {name: [80.0] * 12 for name in OWN} | {
        name: [80.0 - 2 * i] * 12 for i, name in enumerate(OTHER)
    }
    row = judged(values, **GRIDS)
    assert row["effect"] == pytest.approx(0.75)
    assert (row["verdict"], row["ci95"], row["p"]) == ("inconclusive", None, None)


@given(st.lists(st.sampled_from([i / 9 for i in range(-9, 10)]), min_size=3, max_size=14),
       st.floats(1e-6, 0.4), st.sampled_from([i / 9 for i in range(-9, 10)]))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_limits_and_tails_agree_where_values_are_few(
    values: list[float], error: float, bound: float
) -> None:
    found = Resampled.of(values)
    ends = found.limits(error, error)
    if ends is None:
        assert found.tail(bound, True) == found.tail(bound, False) == 1.0
        return
    for above, clear in ((True, ends[0] - bound), (False, bound - ends[1])):
        if abs(clear) > 1e-9:
            assert (found.tail(bound, above) < error) == (clear > 0)


# False verdicts.

RUNS = 500
LIMIT = ALPHA + 3 * sqrt(ALPHA * (1 - ALPHA) / RUNS)


@pytest.mark.parametrize("by", ["share", "mean"])
@pytest.mark.parametrize(("planned", "noise"), [(None, "normal"), (20, "normal"), (20, "skewed")])
def test_grids_of_one_law_are_rarely_told_apart(by: Any, planned: int | None, noise: str) -> None:
    """Two sides that are as flat as each other, with a slope of their own."""
    rng = np.random.default_rng(5)
    shape = (RUNS, planned or 10, 2, 9)
    y = rng.standard_normal(shape) if noise == "normal" else rng.lognormal(0, 1, shape)
    x = np.subtract(*np.moveaxis(flatness(y + np.linspace(0, 2, 9), by, 1.0), -1, 0))
    row: Json = {"test": "superiority", "margin": 0.0}
    wrong = {"reproduced": 0, "contradicted": 0}
    for data in x:
        looks = alpha_spending.looks(planned) if planned else (10,)
        stages = [[dict(enumerate(map(float, data[:end])))] for end in looks]
        found = set()
        for i in range(len(stages)):
            case = Case(row, [], stages[: i + 1], 5, contrasts.resampled, planned=planned)
            p = case.p_value(), case.p_value(opposite=True)
            found.add(
                decide("superiority", 0.0, case.interval(0.95), case.interval(0.9), *p)
            )  # fmt: skip
        for verdict in found & wrong.keys():
            wrong[verdict] += 1
    assert sum(wrong.values()) / RUNS <= LIMIT, wrong


# Claims.

GRID: Json = {
    f"{side}-{i}": {"lr": rate if side == "flat" else {"kind": "repeated", "times": 2,
                                                         "schedule": rate}}
    for side in ("flat", "steep") for i, rate in enumerate((0.05, 0.1, 0.2))
}  # fmt: skip
SIDES: Json = {"arms": ["flat-0", "flat-1", "flat-2"], "against": ["steep-0", "steep-1", "steep-2"]}
AT = "claims.C-1.comparisons[0]"


def project(root: Path, more: Json | None = None, **changes: Any) -> Path:
    paper = copy.deepcopy(PAPER)
    arms(paper).update(copy.deepcopy(GRID) | (more or {}))
    comparison(paper).clear()
    comparison(paper).update({"experiment": "main", **changes})
    write(root, TIER, paper)
    return root


def test_two_grids_are_declared_and_asked_for(tmp_path: Path) -> None:
    plan = check(load(project(tmp_path, flatness=SIDES)))
    [only] = plan.project.papers["one"].claims["C-1"].comparisons
    assert only.kind == "flatness" == contrasts.kind(only.model_dump(mode="json"))
    assert {arm for _, _, arm in plan.part_arms("one.C-1")} == {*SIDES["arms"], *SIDES["against"]}


@pytest.mark.parametrize(
    ("declared", "more", "message"),
    [
        ({"flatness": {**SIDES, "against": ["steep-0", "steep-1", "steep-2", "plain"]}}, {},
         f"{AT}.flatness.against: must have as many points as `arms`, 3 (found 4)."),
        ({"flatness": {**SIDES, "arms": ["flat-0", "flat-1"]}}, {}, "must have at least 3"),
        ({"flatness": {**SIDES, "by": "mean", "within": 2}}, {},
         f"{AT}.flatness.within: has no effect with `by: mean`"),
        ({"flatness": {**SIDES, "within": 0}}, {}, "must be above 0"),
        ({"flatness": {**SIDES, "arms": ["flat-0", "flat-1", "flat-9"]}}, {},
         f"{AT}.flatness: unknown arm 'flat-9' in 'main'"),
        ({"flatness": {**SIDES, "arms": ["flat-0", "flat-1", "steep-2"]}}, {},
         f"{AT}.flatness: the arm 'steep-2' stands twice"),
        ({"flatness": SIDES, "lower_is_better": True}, {},
         f"{AT}.lower_is_better: has no place beside `flatness`"),
        ({"flatness": SIDES, "arm": "fast"}, {}, f"{AT}.arm: has no place beside `flatness`"),
        ({"flatness": SIDES, "test": "non-inferiority", "margin": 0.2}, {},
         f"{AT}.margin: must be at most 0.1 for the test 'non-inferiority' in a share"),
        ({"flatness": SIDES}, {"flat-1": {"lr": 0.3}},
         f"{AT}.flatness: 'flat-1' and 'steep-1' must be the same point of the grid (found lr 0.3, "
         "weight_decay 0, and lr 0.1, weight_decay 0)."),
        ({"flatness": SIDES}, {"flat-1": {"lr": 0.05}, "steep-1": {"lr": 0.05}},
         f"{AT}.flatness.arms: 'flat-0' and 'flat-1' are one point of the grid"),
        ({"flatness": SIDES}, {"steep-2": {"lr": 0.2, "epochs": 7}},
         f"{AT}: the arms see different numbers of samples"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_grids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: Json, more: Json, message: str
) -> None:
    assert message in refused(project(tmp_path, more, **declared), capsys)


def test_the_report_says_what_is_measured() -> None:
    filed: Records = {}
    exp = experiment("e", dict(Y), filed)
    shared = {"experiment": "e", "metric": "test_accuracy", "test": "superiority", "margin": 0.0}
    claims = [claim({**shared, **GRIDS}, name="C-1", planned_seeds=12)]
    paper = {"id": "p", "title": "P", "authors": "-", "year": 2026, "arxiv": None, "venue": "",
             "summary": "", "deviations": []}  # fmt: skip
    found = evidence.build("smoke", "p", paper, [exp], claims, filed, made="now")
    made = {**found, "tables": [], "commands": {"part": "make p", "report": "make"}, "sha256": ""}
    [shown] = view.report([model.complete(made)], "smoke")["papers"]
    [one] = shown["claims"]
    assert one["comparisons"][0]["label"] == "flatness from A to D against W to Z"
    assert one["comparisons"][0]["says_test"] == "flatness"
    assert one["groups"][0]["axis"] == "difference in flatness of test accuracy"
