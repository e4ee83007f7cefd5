"""Contrasts as claims declare them, and as the report shows them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.page import unpacked
from factories.project import PAPER, TIER, arms, comparison, refused, write
from factories.record import Json, Records, claim, experiment

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.evidence import build as evidence
from cyclery.evidence.stats import contrasts
from cyclery.plan.project_checks import check
from cyclery.report import build as build_report
from cyclery.report import model, view

RNG = np.random.default_rng(7)
VALUES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 7.0}
Y = {arm: list(80 + i + RNG.normal(0, 0.4, 6)) for i, arm in enumerate(VALUES)}


def project(root: Path, **changes: Any) -> Path:
    """Write a project whose claim has this comparison."""
    paper = copy.deepcopy(PAPER)
    arms(paper).update(slow={"lr": 0.05}, late={"lr": 0.02})
    paper["experiments"]["twin"] = {
        "title": "twin", "tiers": {"smoke": {}}, "arms": {"plain": {}, "fast": {"lr": 0.3}},
    }  # fmt: skip
    comparison(paper).clear()
    comparison(paper).update({"experiment": "main", **changes})
    write(root, TIER, paper)
    return root


DIFFERENCE = {"arm": "fast", "against": "plain"}
THREE = {"slow": 0.05, "plain": 0.1, "fast": 0.2}


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (DIFFERENCE | {"interaction": {"experiment": "twin"}}, "interaction"),
        (DIFFERENCE | {"interaction": {"arm": "slow"}}, "interaction"),
        ({"trend": {"values": THREE, "scale": "log"}}, "trend"),
        (
            {
                "trend": {
                    "values": {"slow": 1, "plain": 1, "fast": 2, "late": 4},
                    "blocks": [["slow", "fast"], ["plain", "late"]],
                }
            },
            "trend",
        ),
        ({"ordering": ["fast", "plain", "slow"]}, "ordering"),
        ({"rank_correlation": {"values": THREE}}, "rank correlation"),
        (
            {"rank_correlation": {"arms": list(THREE), "metric": "test_nll"}},
            "rank correlation",
        ),
    ],
)
def test_kinds_of_comparisons(tmp_path: Path, declared: Json, found: str) -> None:
    plan = check(load(project(tmp_path, **declared)))
    [only] = plan.project.papers["one"].claims["C-1"].comparisons
    assert only.kind == found
    assert contrasts.kind(only.model_dump(mode="json")) == found
    asked = {arm for _, _, arm in plan.part_arms("one.C-1")}
    assert asked == {arm for group in only.groups() for arm in group.arms}


AT = "claims.C-1.comparisons[0]"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"trend": {"values": THREE}, "arm": "fast"}, f"{AT}.arm: has no place beside `trend`"),
        ({"arm": "fast"}, f"{AT}.against: missing"),
        ({"trend": {"values": THREE}, "ordering": list(THREE)}, "has trend and ordering"),
        ({"trend": {"values": {"slow": 1, "fast": 2}}}, "must have at least 3 elements"),
        ({"trend": {"values": THREE | {"fast": 0.1}}}, f"{AT}.trend.values: must be a different"),
        (
            {"trend": {"values": THREE | {"late": 0.2},
                       "blocks": [["fast", "late"], ["slow", "plain"]]}},
            f"{AT}.trend.values: must be a different",
        ),
        (
            {"trend": {"values": THREE, "blocks": [["slow", "plain"]]}},
            f"{AT}.trend.blocks: must have each arm of `values` in one group",
        ),
        ({"trend": {"values": THREE | {"slow": 0}, "scale": "log"}}, "must be above 0 on the"),
        ({"trend": {"values": THREE | {"sloow": 3}}}, f"{AT}.trend: unknown arm 'sloow' in 'main'"),
        ({"trend": {"values": THREE}, "metric": "accuracy"}, f"{AT}.metric: unknown metric"),
        ({"trend": {"values": THREE}, "experiment": "man"}, f"{AT}.experiment: unknown exp"),
        ({"ordering": ["fast", "plain", "fast"]}, f"{AT}.ordering: an arm stands twice"),
        (
            {"ordering": list(THREE), "test": "equivalence", "margin": 1},
            f"{AT}.test: an ordering has no equivalence",
        ),
        ({"rank_correlation": {}}, "must have one of the keys `values` and `arms`"),
        ({"rank_correlation": {"arms": list(THREE)}}, "`arms` and `metric` belong together"),
        (
            {"rank_correlation": {"arms": list(THREE), "metric": "test_accuracy"}},
            "'test_accuracy' would be correlated with itself",
        ),
        (
            {"rank_correlation": {"arms": [*THREE, "fast"], "metric": "test_nll"}},
            f"{AT}.rank_correlation: the arm 'fast' stands twice",
        ),
        ({"rank_correlation": {"values": THREE}, "margin": 1}, f"{AT}.margin: must be below 1"),
        (DIFFERENCE | {"interaction": {}}, f"{AT}.interaction: must set `experiment`"),
        (DIFFERENCE | {"interaction": {"arm": "fast"}}, "is the first difference again"),
        (DIFFERENCE | {"interaction": {"against": {"constant": 1}}}, "must be arms; a constant"),
        (DIFFERENCE | {"interaction": {"arm": "plain"}}, "'plain' would be compared with itself"),
        (
            DIFFERENCE | {"interaction": {"metric": "test_nll"}},
            f"{AT}.interaction.metric: 'test_nll' has another unit",
        ),
        (
            DIFFERENCE | {"interaction": {"arm": "slow"}, "against_metric": "test_nll"},
            f"{AT}.against_metric: an interaction takes two arms and one metric",
        ),
        (DIFFERENCE | {"effect": -1}, f"{AT}.effect: must be above 0, or no number of seeds"),
        (
            DIFFERENCE | {"effect": 2, "test": "equivalence", "margin": 1},
            f"{AT}.effect: must lie within +/-1",
        ),
        (DIFFERENCE | {"spread": 2}, f"{AT}.spread: belongs to an `effect` or a `printed` one"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_contrast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: Json, message: str
) -> None:
    assert message in refused(project(tmp_path, **declared), capsys)


def test_orderings_and_mixed_kinds_have_no_common_mean(tmp_path: Path) -> None:
    project(tmp_path, trend={"values": THREE})
    paper = copy.deepcopy(PAPER)
    arms(paper).update(slow={"lr": 0.05}, late={"lr": 0.02})
    paper["claims"]["C-1"] |= {"pooled": True}
    paper["claims"]["C-1"]["comparisons"].append({"experiment": "main", "trend": {"values": THREE}})
    write(tmp_path, TIER, paper)
    with pytest.raises(UserError, match=r"pooled: needs comparisons of one kind"):
        load(tmp_path)


def test_the_report_shows_contrasts_and_what_stands_beside_them(tmp_path: Path) -> None:
    filed: Records = {}
    exp = experiment("e", dict(Y), filed)
    shared = {"experiment": "e", "metric": "test_accuracy", "test": "superiority", "margin": 0.0}
    claims = [
        claim({**shared, "arm": "b", "against": "a", "effect": 0.5}, name="C-1", planned_seeds=6),
        claim({**shared, "trend": {"values": VALUES}, "margin": 0.1}, name="C-2", planned_seeds=6),
        claim({**shared, "ordering": ["d", "c", "b", "a"]}, name="C-3", planned_seeds=6),
        claim({**shared, "rank_correlation": {"values": VALUES}}, name="C-4", planned_seeds=6),
        claim(
            {**shared, "arm": "d", "against": "c", "interaction": {"against": "b"}},
            name="C-5",
            planned_seeds=6,
        ),
    ]
    paper = {"id": "p", "title": "P", "authors": "-", "year": 2026, "arxiv": None, "venue": "",
             "summary": "", "deviations": []}  # fmt: skip
    judged = evidence.build("smoke", "p", paper, [exp], claims, filed, made="now")
    made = {**judged, "tables": [], "commands": {"part": "make p", "report": "make"}, "sha256": ""}
    [shown] = view.report([model.complete(made)], "smoke")["papers"]
    rows = [c["comparisons"][0] for c in shown["claims"]]
    assert [row["says_test"] for row in rows] == [
        "superiority", "trend, above 0.10 pp", "ordering", "rank correlation", "interaction",
    ]  # fmt: skip
    asides = [" ".join(row["asides"]) for row in rows]
    needed = rows[0]["seeds_for_power"]
    assert (
        f"Stated effect +0.50 pp: {needed} seeds would find it with 80\u00a0% power." in asides[0]
    )
    assert "sign-flip p = 0.031; 100\u00a0% of pairs in favour" in asides[0]
    assert "interquartile means 8" in asides[0] and "interquartile" not in asides[1]
    assert "smallest step" in asides[2]
    assert any(f"{needed} seeds find the stated effect" in x for x in shown["claims"][0]["facts"])
    axes = [c["groups"][0]["axis"] for c in shown["claims"]]
    assert axes[3] == "rank correlation of test accuracy (τ)"
    assert axes[1].startswith("rise along the trend in test accuracy")
    heads = [c.header for c in shown["claims"][1]["traces"][0]["table"].columns]
    assert heads == ["Seed", "Contrast (pp)", "A", "B", "C", "D"]
    heads = [c.header for c in shown["comparison_table"].columns]
    assert heads[-4:] == ["p (sign flip)", "n", "For 80 %", "Verdict"]
    build_report([made], tmp_path, "smoke")
    assert "sign-flip" in unpacked((tmp_path / "index.html").read_text())
