"""The rule of verdicts, branch by branch, with every reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.record import (
    NOISE,
    Json,
    Records,
    claim,
    comparison,
    experiment,
    judged,
    key,
    one,
    shifted,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence import verdict_text
from cyclery.evidence.verdicts import combine, decide, judge

BEST = {"best_of": ["b", "c"], "by": "val_accuracy"}


@pytest.mark.parametrize(
    ("test", "margin", "ci95", "ci90", "p", "opposite", "expected"),
    [
        ("superiority", 0, (0.1, 0.9), (0.2, 0.8), 0.01, 0.01, "reproduced"),
        ("superiority", 0, (0.1, 0.9), (0.2, 0.8), 0.05, 0.05, "inconclusive"),
        ("superiority", 0, (0.0, 0.9), (0.1, 0.8), 0.01, 0.01, "inconclusive"),
        ("superiority", 0, (-0.1, 0.9), (0.1, 0.8), 0.01, 0.01, "inconclusive"),
        ("superiority", 0, (-0.9, -0.1), (-0.8, -0.2), 0.01, 0.01, "contradicted"),
        ("superiority", 0, (-0.9, -0.1), (-0.8, -0.2), 0.05, 0.05, "inconclusive"),
        ("superiority", 0, (-0.9, 0.0), (-0.8, -0.1), 0.01, 0.01, "inconclusive"),
        ("superiority", 0.5, (0.6, 0.9), (0.65, 0.8), 0.01, 0.01, "reproduced"),
        ("superiority", 0.5, (0.1, 0.4), (0.2, 0.3), 0.01, 0.01, "contradicted"),
        ("superiority", 0.5, (0.1, 0.9), (0.2, 0.8), 0.01, 0.01, "inconclusive"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.4, 0.4), 0.01, 1.0, "reproduced"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.4, 0.4), 0.06, 1.0, "inconclusive"),
        ("equivalence", 0.5, (-0.6, 0.6), (-0.5, 0.4), 0.01, 1.0, "inconclusive"),
        ("equivalence", 0.5, (0.3, 1.0), (0.4, 0.9), 0.01, 0.01, "inconclusive"),
        ("equivalence", 0.5, (0.4, 1.0), (0.6, 0.9), 0.9, 0.01, "contradicted"),
        ("equivalence", 0.5, (0.4, 1.0), (0.6, 0.9), 0.9, 0.06, "inconclusive"),
        ("equivalence", 0.5, (-1.0, -0.4), (-0.9, -0.6), 0.9, 0.01, "contradicted"),
        ("equivalence", 0.5, (-1.0, 1.0), (-0.9, 0.9), 0.9, 0.01, "inconclusive"),
        ("non-inferiority", 0.5, (-0.4, 0.2), (-0.3, 0.1), 0.01, 1.0, "reproduced"),
        ("non-inferiority", 0.5, (-0.4, 0.2), (-0.3, 0.1), 0.06, 1.0, "inconclusive"),
        ("non-inferiority", 0.5, (-0.6, 0.2), (-0.4, 0.1), 0.01, 1.0, "inconclusive"),
        ("non-inferiority", 0.5, (-0.9, -0.6), (-0.8, -0.7), 1.0, 0.01, "contradicted"),
        ("non-inferiority", 0.5, (-0.9, -0.6), (-0.8, -0.7), 1.0, 0.06, "inconclusive"),
        ("superiority", 0, None, None, 1.0, 1.0, "inconclusive"),
        ("equivalence", 0.5, None, None, 0.0, 0.0, "inconclusive"),
    ],
)
def test_rule_of_one_comparison(
    test: Any, margin: float, ci95: Any, ci90: Any, p: float, opposite: float, expected: str
) -> None:
    assert decide(test, margin, ci95, ci90, p, opposite) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["reproduced"], "reproduced"),
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "inconclusive"], "partly"),
        (["reproduced", "contradicted"], "partly"),
        (["reproduced", "not run"], "partly"),
        (["contradicted"], "contradicted"),
        (["contradicted", "inconclusive"], "contradicted"),
        (["contradicted", "not run"], "contradicted"),
        (["inconclusive", "not run"], "inconclusive"),
        (["not run", "not run"], "not run"),
    ],
)
def test_rule_of_a_claim(verdicts: list[str], expected: str) -> None:
    assert combine(verdicts) == expected


def test_reproduced_with_every_figure() -> None:
    values = shifted(1.0)
    [found] = judged(values, claim(comparison()))
    [row] = found["comparisons"]
    expected = scipy_stats.ttest_rel(values["a"], values["b"])
    assert (row["verdict"], row["n"], row["seeds"]) == ("reproduced", 5, [0, 1, 2, 3, 4])
    assert row["p"] == row["p_holm"] == pytest.approx(expected.pvalue)
    assert row["ci95"] == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert row["ci90"] == pytest.approx(tuple(expected.confidence_interval(0.90)))
    assert row["differences"] == pytest.approx([1.0 + x for x in NOISE])
    assert row["sd"] == pytest.approx(np.std(NOISE, ddof=1))
    assert row["keys"] == [[key("e", "a", s), key("e", "b", s)] for s in range(5)]
    assert (row["unit"], row["label"], row["chosen"]) == ("pp", "A against B", None)
    assert row["bca95"] is None and row["units"] is None
    assert (found["n"], found["planned_seeds"], found["seeds_to_settle"]) == (5, 5, None)
    assert found["reason"] == (
        "+1.00 pp (95 % interval +0.79 to +1.21); Holm-adjusted p < 0.001, n = 5 of 5 planned."
    )


def test_other_verdicts_and_their_reasons() -> None:
    row = one(shifted(-1.0))
    assert row["verdict"] == "contradicted"
    assert row["reason"].endswith("lies below zero; Holm-adjusted p < 0.001, n = 5 of 5 planned.")
    row = one(shifted(0.02))
    assert row["verdict"] == "inconclusive" and "spans zero" in row["reason"]
    row = one(shifted(0.0), test="equivalence", margin=0.5)
    assert row["verdict"] == "reproduced" and "90 % interval" in row["reason"]
    row = one(shifted(1.0), test="equivalence", margin=0.5)
    assert row["verdict"] == "contradicted" and "outside +/-0.50 pp" in row["reason"]
    row = one(shifted(0.5), test="equivalence", margin=0.5)
    assert "neither inside nor outside +/-0.50 pp" in row["reason"]
    assert row["seeds_to_settle"] is None
    assert "more than 10000 seeds would be needed" in row["reason"]
    assert one(shifted(-0.1), test="non-inferiority", margin=0.5)["verdict"] == "reproduced"
    row = one(shifted(-1.0), test="non-inferiority", margin=0.5)
    assert row["verdict"] == "contradicted" and "below -0.50 pp" in row["reason"]
    row = one(shifted(1.0), margin=2.0)
    assert row["verdict"] == "contradicted" and "the margin of 2.00 pp" in row["reason"]


def test_inconclusive_says_what_would_settle_it() -> None:
    values: dict[str, list[float | None]] = {
        "a": [90.1, 90.5, 89.9, 90.6, 90.0], "b": [90.0] * 5,
    }  # fmt: skip
    [found] = judged(values, claim(comparison()), seconds=30.0)
    [row] = found["comparisons"]
    assert found["verdict"] == "inconclusive"
    needed = found["seeds_to_settle"]
    assert needed > 5 and needed == row["seeds_to_settle"]
    # two arms of 30 s each for every further seed
    assert found["seconds_to_settle"] == pytest.approx((needed - 5) * 60)
    assert (
        f"about {needed} seeds ({verdict_text.duration((needed - 5) * 60)} more)" in found["reason"]
    )
    assert "n = 5 of 5 planned" in found["reason"] and "80 % power" in found["reason"]


@pytest.mark.parametrize("test", ["superiority", "equivalence", "non-inferiority"])
@pytest.mark.parametrize("effect", [0.0, 0.5, -0.5])
def test_identical_differences_decide_nothing(test: str, effect: float) -> None:
    values: dict[str, list[float | None]] = {
        "a": [x + effect for x in (90.0, 91.0, 92.3)], "b": [90.0, 91.0, 92.3],
    }  # fmt: skip
    row = one(values, test=test, margin=1.0)
    assert (row["verdict"], row["p"], row["p_holm"], row["ci95"]) == ("inconclusive", *[None] * 3)
    assert row["effect"] == pytest.approx(effect) and row["sd"] == 0.0
    assert "all 3 differences are" in row["reason"].lower()


def test_one_pair_decides_nothing() -> None:
    row = one({"a": [91.0], "b": [90.0]})
    assert (row["verdict"], row["n"], row["sd"], row["ci95"]) == ("inconclusive", 1, None, None)
    assert row["effect"] == pytest.approx(1.0)
    assert row["reason"] == "One pair has no spread: at least 2 are needed; n = 1 of 1 planned."


def test_lower_is_better_flips_and_the_unit_is_the_metrics() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [90.0] * 5, "b": [90.0] * 5}, records)
    for seed, noise in enumerate(NOISE):
        records[key("e", "a", seed)]["final"]["test_nll"] = 0.1 + noise / 10
    down = claim(comparison(metric="test_nll", lower_is_better=True))
    up = claim(comparison(metric="test_nll"), name="C-2")
    better, worse = judge([down, up], "smoke", [exp], records)
    assert (better["verdict"], worse["verdict"]) == ("reproduced", "contradicted")
    row, other = better["comparisons"][0], worse["comparisons"][0]
    assert row["effect"] == pytest.approx(0.1) == -other["effect"]
    assert row["unit"] == "" and "pp" not in row["reason"]


@settings(deadline=None)  # the first of a plan works out its boundaries
@given(st.floats(-5, 5), st.lists(st.floats(-2, 2), min_size=3, max_size=8))
def test_shifting_both_arms_changes_nothing_and_swapping_negates(
    shift: float, noise: list[float]
) -> None:
    base = {"a": [90 + x for x in noise], "b": [90 - x / 3 for x in noise]}
    moved = {arm: [x + shift for x in column] for arm, column in base.items()}
    here, there = one(dict(base)), one(dict(moved))
    back = one({"a": list(base["b"]), "b": list(base["a"])})
    assert there["effect"] == pytest.approx(here["effect"], abs=1e-9)
    assert back["effect"] == pytest.approx(-here["effect"], abs=1e-9)
    if here["ci95"] and there["ci95"] and min(map(abs, here["ci95"])) > 1e-6:
        assert there["ci95"] == pytest.approx(here["ci95"], abs=1e-6)
        assert there["verdict"] == here["verdict"]
        swap = {"reproduced": "contradicted", "contradicted": "reproduced"}
        assert back["verdict"] == swap.get(here["verdict"], here["verdict"])


def test_bca_stands_beside_from_ten_pairs() -> None:
    row = one({"a": [90 + x for x in NOISE * 2], "b": [89.0] * 10})
    low, high = row["bca95"]
    assert row["ci95"][0] < low < 1.0 < high < row["ci95"][1]
    assert row["reason"].endswith("n = 10 of 10 planned, look 2 of 2.")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"experiment": "x"}, "Experiment 'x' is not run at this tier."),
     ({"arm": "x"}, "Arm 'x' of 'e' is not run at this tier."),
     ({"against": "x"}, "Arm 'x' of 'e' is not run at this tier.")],
)  # fmt: skip
def test_what_the_tier_does_not_run(changes: Json, reason: str) -> None:
    row = one(shifted(1.0), **changes)
    assert (row["verdict"], row["reason"]) == ("not run", reason)


def test_holm_runs_over_every_declared_comparison() -> None:
    values = {**shifted(0.28), "c": [85.0] * 5}
    alone = judged(values, claim(comparison()))[0]["comparisons"][0]
    assert alone["verdict"] == "reproduced" and 0.02 < alone["p"] < 0.05
    absent = claim(comparison(experiment="x"), comparison(experiment="y"), name="C-2")
    first, second = judged(values, claim(comparison()), absent)
    [row] = first["comparisons"]
    assert second["verdict"] == "not run"
    assert row["p"] == alone["p"] and row["p_holm"] == pytest.approx(3 * alone["p"])
    assert row["verdict"] == "inconclusive"
    assert f"clears zero, but Holm-adjusted p = {3 * alone['p']:.3f} over 3 tests" in row["reason"]
    assert row["seeds_to_settle"] > 5
    # a claim that is not declared for the tier is no part of the family
    other = claim(comparison("c"), name="C-2", not_run={"smoke": "Too slow."})
    assert judged(values, claim(comparison()), other)[0]["verdict"] == "reproduced"


def test_claim_that_needs_all_its_comparisons() -> None:
    values = {**shifted(1.0), "c": [91.02] * 5, "d": [95.0] * 5, "f": [None] * 5}
    both, some, mixed, against = judged(
        values,
        claim(comparison(), comparison("b", label="again"), name="all"),
        claim(comparison(), comparison("c"), comparison("f"), name="some"),
        claim(comparison(), comparison("d"), name="mixed"),
        claim(comparison("c"), comparison("d"), name="against"),
    )
    assert both["verdict"] == "reproduced" and both["reason"] == "Of 2 comparisons: 2 reproduced."
    assert some["verdict"] == "partly"
    assert some["reason"].startswith(
        "Of 3 comparisons: 1 reproduced, 1 inconclusive, 1 not run. "
        "Not reproduced: A against C (inconclusive); A against F (not run). n = 5 of 5 planned;"
    )
    assert some["seeds_to_settle"] == some["comparisons"][1]["seeds_to_settle"]
    assert mixed["verdict"] == "partly"
    assert against["verdict"] == "contradicted"


def test_one_weak_contradiction_among_many_does_not_contradict() -> None:
    values = {**shifted(-0.24), **{name: [90.0] * 5 for name in "cdfgh"}}
    assert judged(values, claim(comparison()))[0]["verdict"] == "contradicted"
    for name in "cdfgh":  # no clear difference
        values[name] = [90 - 0.24 + 2 * x for x in (0.3, -0.2, 0.1, -0.3, 0.12)]
    [found] = judged(values, claim(comparison(), *(comparison(name) for name in "cdfgh")))
    assert [row["verdict"] for row in found["comparisons"]] == ["inconclusive"] * 6
    assert found["verdict"] == "inconclusive"


def test_cost_counts_each_arm_once() -> None:
    values: dict[str, list[float | None]] = {
        "a": [90 + x for x in NOISE], "b": [89.95] * 5, "c": [89.9] * 5,
    }  # fmt: skip
    [found] = judged(values, claim(comparison("b"), comparison("c")), seconds=10.0)
    rows = found["comparisons"]
    assert [row["verdict"] for row in rows] == ["inconclusive"] * 2
    extra = [row["seeds_to_settle"] - 5 for row in rows]
    assert found["seeds_to_settle"] == max(extra) + 5
    assert found["seconds_to_settle"] == pytest.approx(10 * (max(extra) + sum(extra)))
    assert rows[0]["seconds_to_settle"] == pytest.approx(20 * extra[0])
    # every arm that the choice among controls needs is trained further
    [found] = judged(values, claim(comparison(BEST)), seconds=10.0)
    assert found["seconds_to_settle"] == pytest.approx(30 * (found["seeds_to_settle"] - 5))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"not_run": {"smoke": "Needs ImageNet."}}, "Needs ImageNet."),
     ({"not_run": {"all": "No code."}}, "No code."),
     ({"comparisons": []}, "no comparison is declared")],
)  # fmt: skip
def test_claims_that_are_not_tested(changes: Json, reason: str) -> None:
    given = {**claim(comparison()), **changes}
    [found] = judge([given], "smoke", [], {}, {"C-1": "takes a day"})
    assert (found["verdict"], found["n"]) == ("not run", 0)
    assert found["reason"] == f"{reason}; takes a day" and found["seconds_to_settle"] is None
    assert all(row["verdict"] == "not run" for row in found["comparisons"])


def test_false_reproduced_rate_of_the_whole_rule() -> None:
    """A/A records judged through the best of two controls and Holm: claims hold too rarely."""
    rng, false, runs = np.random.default_rng(4), 0, 300
    for _ in range(runs):
        arms = {name: list(90 + rng.lognormal(0, 0.8, 5)) for name in "abc"}
        found = judged(arms, claim(comparison(BEST)), claim(comparison("c"), name="C-2"))
        false += any(each["verdict"] == "reproduced" for each in found)
    assert false <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)
