"""Looks at growing data: boundaries, sequential p-values, and what verdicts make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.record import Json, Records, claim, comparison, diverge, experiment, key
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence import verdict_text
from cyclery.evidence.stats import alpha_spending, paired_tests
from cyclery.evidence.verdicts import judge

NOISE = [0.1, -0.2, 0.05, 0.2, -0.15, 0.15, -0.1, 0.0, 0.25, -0.3]


# Boundaries and p-values.


def test_boundaries_equal_the_published_ones() -> None:
    """Two-sided .05, O'Brien-Fleming type: Reboussin et al. 2000 (ldbounds) for equal looks."""
    z = scipy_stats.norm.isf(alpha_spending.boundaries(0.025, alpha_spending.looks(25)))
    assert z == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)
    z = scipy_stats.norm.isf(alpha_spending.boundaries(0.025, (5, 10)))
    assert z == pytest.approx([2.963, 1.969], abs=1e-3)


@pytest.mark.parametrize(("alpha", "planned"), [(0.025, 20), (0.05, 17), (0.01, 12)])
def test_looks_spend_what_the_function_says(alpha: float, planned: int) -> None:
    """The chance to cross no boundary, by another integral (of Genz)."""
    times = np.array(alpha_spending.looks(planned)) / planned
    bounds = scipy_stats.norm.isf(alpha_spending.boundaries(alpha, alpha_spending.looks(planned)))
    corr = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    for k in range(2, len(times) + 1):
        law = scipy_stats.multivariate_normal(np.zeros(k), corr[:k, :k], abseps=1e-7, seed=0)
        kept = law.cdf(bounds[:k])
        assert 1 - kept == pytest.approx(alpha_spending.spent(alpha, times[k - 1]), abs=1e-5)


def test_t_statistics_spend_a_little_less() -> None:
    assert alpha_spending.levels(0.025, 20) == alpha_spending.boundaries(
        0.93 * 0.025, (5, 10, 15, 20)
    )
    assert alpha_spending.levels(0.025, 5) == (0.025,)


@pytest.mark.parametrize("planned", [7, 20])
def test_t_statistics_of_growing_data_err_as_often_as_they_may(planned: int) -> None:
    runs, alpha = 40_000, 0.05
    x = np.random.default_rng(planned).standard_normal((runs, planned))
    crossed = np.zeros(runs, dtype=bool)
    for end, level in zip(
        alpha_spending.looks(planned), alpha_spending.levels(alpha, planned), strict=True
    ):
        p = scipy_stats.ttest_1samp(x[:, :end], 0, axis=1, alternative="greater").pvalue
        crossed |= p < level
    error = np.sqrt(alpha * (1 - alpha) / runs)
    assert alpha - 6 * error < crossed.mean() < alpha + 3 * error


def test_looks_are_at_the_ends_of_blocks_and_of_the_plan() -> None:
    assert alpha_spending.looks(3) == (3,) and alpha_spending.looks(5) == (5,)
    assert alpha_spending.looks(10) == (5, 10) and alpha_spending.looks(12) == (5, 10, 12)
    assert alpha_spending.spent(0.025, 1.0) == 0.025


@pytest.mark.parametrize("planned", [1, 3, 5])
def test_one_look_is_the_plain_test(planned: int) -> None:
    assert alpha_spending.levels(0.025, planned) == (0.025,)
    for p in (1e-30, 0.02, 0.9):
        assert alpha_spending.overall(p, planned, 0) == p


@pytest.mark.parametrize("planned", [7, 20, 50])
def test_p_is_the_smallest_error_that_crosses(planned: int) -> None:
    for look in range(len(alpha_spending.looks(planned))):
        for alpha in (0.025, 0.05):  # where verdicts are read p and boundary agree
            edge = alpha_spending.levels(alpha, planned)[look]
            assert alpha_spending.overall(edge * 0.999999, planned, look) < alpha
            assert alpha_spending.overall(edge * 1.000001, planned, look) > alpha
        for alpha in (0.0003, 0.0071, 0.013, 0.2):
            edge = alpha_spending.levels(alpha, planned)[look]
            assert alpha_spending.overall(edge, planned, look) == pytest.approx(alpha, rel=5e-3)
    assert alpha_spending.overall(0.9, planned, 0) == 1.0
    assert alpha_spending.overall(0.0, planned, 0) == pytest.approx(1e-10)


@settings(deadline=None)  # the first one works out the boundaries
@given(st.integers(0, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_error_of_a_look_is_monotone(look: int, one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert alpha_spending.overall(low, 20, look) <= alpha_spending.overall(high, 20, look)
    # A look at part of the data never crosses more easily than one test of that part would.
    assert alpha_spending.overall(low, 20, look) >= min(low, 0.3) * (1 - 1e-3)


def test_very_long_plans_keep_levels_above_nothing() -> None:
    first, second, *_ = alpha_spending.levels(0.025, 200)
    assert 0 < first < second < 1e-9
    assert alpha_spending.levels(1e-9, 1000)[0] == 0.0
    assert paired_tests.estimate([0.0, 1.0, 2.0]).limits(first, first) is not None


# Verdicts.


def arms(effect: float, n: int) -> dict[str, list[float | None]]:
    return {"a": [90 + effect + NOISE[s % 10] for s in range(n)], "b": [90.0] * n}


def judged(
    values: dict[str, list[float | None]], planned: int | None, *comparisons: Json,
    records: Records | None = None, **changes: Any,
) -> Json:  # fmt: skip
    filed: Records = {} if records is None else records
    exp = experiment("e", values, filed)
    given_ = claim(*(comparisons or [comparison()]), planned_seeds=planned, **changes)
    [found] = judge([given_], "smoke", [exp], filed)
    return found


def row(values: dict[str, list[float | None]], planned: int | None, **changes: Any) -> Json:
    [found] = judged(values, planned, comparison(**changes))["comparisons"]
    return dict(found)


def test_no_verdict_before_the_first_look() -> None:
    found = row(arms(1.0, 4), 20)
    assert (found["verdict"], found["ci95"], found["p_holm"], found["look"]) == (
        "inconclusive", None, None, None,
    )  # fmt: skip
    assert found["n"] == 4 and found["effect"] == pytest.approx(1.0 + np.mean(NOISE[:4]))
    est = paired_tests.estimate(found["differences"])
    assert found["naive95"] == paired_tests.interval(est)
    assert found["reason"] == (
        "No look yet: the first is after 5 seeds, of which 4 are finished in every arm; "
        "n = 4 of 20 planned."
    )
    assert row(arms(1.0, 3), 5)["verdict"] == "inconclusive"
    assert row(arms(1.0, 3), 3)["verdict"] == "reproduced"


def test_headline_interval_has_the_level_of_the_look() -> None:
    for n, look in ((5, 0), (10, 1), (20, 3)):
        found = row(arms(1.0, n), 20)
        d = found["differences"]
        tail = alpha_spending.levels(0.025, 20)[look]
        wide = scipy_stats.ttest_1samp(d, 0).confidence_interval(1 - 2 * tail)
        plain = scipy_stats.ttest_1samp(d, 0).confidence_interval(0.95)
        assert found["ci95"] == pytest.approx((wide.low, wide.high))
        assert found["naive95"] == pytest.approx((plain.low, plain.high))
        assert found["ci95"][0] < found["naive95"][0]
        assert found["look"] == {
            "number": look + 1, "of": 4, "seeds": n, "planned": 20,
            "level": pytest.approx(1 - 2 * tail),
        }  # fmt: skip
    assert f"look {look + 1} of 4" in found["reason"] and "naive" in found["reason"]
    assert "Holm-adjusted sequential p" in found["reason"]


def test_a_plan_of_one_look_is_the_plain_test() -> None:
    planned, free = row(arms(0.3, 5), 5), row(arms(0.3, 5), None)
    same = ("ci95", "ci90", "p", "p_holm", "effect", "verdict", "naive95")
    assert [planned[name] for name in same] == [free[name] for name in same]
    assert planned["ci95"] == planned["naive95"]


def test_what_one_test_would_call_significant_waits_for_more() -> None:
    values = arms(0.25, 5)
    assert row(values, 5)["verdict"] == "reproduced"
    found = row(values, 20)
    assert found["verdict"] == "inconclusive"
    assert found["naive95"][0] > 0 > found["ci95"][0] and found["p"] > 0.05
    assert row(arms(0.25, 20), 20)["verdict"] == "reproduced"


def test_between_looks_the_last_complete_one_decides() -> None:
    early, between = row(arms(0.6, 10), 20), arms(0.6, 13)
    between["a"][10:] = [10.0, 11.0, 12.0]  # a catastrophe that is not looked at yet
    found = row(between, 20)
    same = ("verdict", "ci95", "p", "n", "effect", "seeds", "look")
    assert [found[name] for name in same] == [early[name] for name in same]
    more = found["exploratory"]
    assert more["seeds"] == [10, 11, 12] and more["n"] == 13 and more["effect"] < -10
    assert more["keys"][0] == [key("e", "a", 10), key("e", "b", 10)]
    assert verdict_text.exploratory(found).startswith("Exploratory, 3 seeds after look 2 of 4")
    assert early["exploratory"] is None and verdict_text.exploratory(early) == ""


def test_seeds_beyond_the_plan_move_nothing() -> None:
    base = row(arms(0.02, 5), 5)
    values = arms(0.02, 50)
    values["a"][5:] = [95.0 + x for x in NOISE * 4 + NOISE[:5]]
    found = row(values, 5)
    assert found["verdict"] == base["verdict"] == "inconclusive"
    assert (found["ci95"], found["p"], found["reason"]) == (
        base["ci95"], base["p"], base["reason"],
    )  # fmt: skip
    assert found["exploratory"]["naive95"][0] > 3
    assert "45 seeds beyond the 5 planned" in verdict_text.exploratory(found)
    assert "they decide nothing" in verdict_text.exploratory(found)


def test_a_diverged_run_ends_a_block_and_a_missing_one_does_not() -> None:
    records: Records = {}
    exp = experiment("e", arms(1.0, 10), records)
    diverge(records, key("e", "a", 2))
    given_ = [claim(comparison(), planned_seeds=10)]
    [found] = judge(given_, "smoke", [exp], records)
    assert found["comparisons"][0]["look"]["number"] == 2 and found["n"] == 9
    del records[key("e", "b", 7)]
    [found] = judge(given_, "smoke", [exp], records)
    [one] = found["comparisons"]
    assert one["look"]["number"] == 1 and one["n"] == 4
    assert one["exploratory"]["seeds"] == [5, 6, 8, 9]


def test_an_early_crossing_counts_for_holm_but_the_interval_must_still_hold() -> None:
    values = arms(1.0, 10)
    alone = row(values, 20)
    values["a"] += [90 + 3.0 * (-1) ** s for s in range(10)]
    values["b"] += [90.0] * 10
    found = row(values, 20)
    assert found["p"] <= alone["p"] * 1.001, "sequential p never rises"
    assert found["ci95"][0] < 0 and found["verdict"] == "inconclusive"


def test_a_crossing_on_the_other_side_is_no_evidence() -> None:
    values = arms(-1.0, 10)
    values["a"] += [91.2 + x for x in NOISE]
    values["b"] += [90.0] * 10
    found = row(values, 20)
    assert found["effect"] > 0 and found["p"] > 0.05


def test_the_best_control_is_the_one_of_the_look() -> None:
    records: Records = {}
    values = {**arms(1.0, 7), "c": [89.0] * 7}
    exp = experiment("e", values, records)
    for seed in (5, 6):
        records[key("e", "c", seed)]["final"]["val_accuracy"] = 1.0e3
    best = {"best_of": ["b", "c"], "by": "val_accuracy"}
    [found] = judge([claim(comparison(best), planned_seeds=10)], "smoke", [exp], records)
    [one] = found["comparisons"]
    assert one["chosen"] == "b" and one["exploratory"]["chosen"] == "c"


def test_an_arm_with_seeds_of_its_own_plans_no_more() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0 + x for x in NOISE[:3]]}, records)
    given_ = claim(comparison({"constant": 90.0}), planned_seeds=20)
    [found] = judge([given_], "smoke", [exp], records)
    assert found["verdict"] == "inconclusive"
    exp["arms"][0]["planned"] = 3
    [found] = judge([given_], "smoke", [exp], records)
    assert found["verdict"] == "reproduced"
    assert found["comparisons"][0]["look"]["planned"] == 3


def test_settling_within_the_plan_is_at_a_look_and_beyond_it_a_new_plan() -> None:
    values = arms(0.12, 10)
    found = row(values, 50)
    assert found["verdict"] == "inconclusive" and found["seeds_to_settle"] % 5 == 0
    assert "as a new plan" not in found["reason"]
    assert "as a new plan" in row(values, 10)["reason"]


def pooled(records: Records, n: int) -> list[Json]:
    rng = np.random.default_rng(3)
    return [experiment(name, {"a": list(91 + rng.normal(0, 0.3, n)), "b": [90.0] * n}, records)
            for name in "ef"]  # fmt: skip


def test_pooled_claims_have_the_looks_of_their_slowest_experiment() -> None:
    records: Records = {}
    exps = pooled(records, 12)
    given_ = claim(
        comparison(experiment="e"), comparison(experiment="f"), pooled=True, planned_seeds=15
    )
    [found] = judge([given_], "smoke", exps, records)
    mean = found["comparisons"][0]
    assert mean["look"]["number"] == 2 and mean["n"] == 10
    assert mean["ci95"][0] < mean["naive95"][0]
    del records[key("f", "b", 6)]
    [found] = judge([given_], "smoke", exps, records)
    mean, first, _ = found["comparisons"]
    assert (mean["look"]["number"], mean["n"], first["look"]["number"]) == (1, 5, 2)
    del records[key("f", "b", 2)]
    [found] = judge([given_], "smoke", exps, records)
    assert found["verdict"] == "inconclusive"
    assert found["reason"].startswith("No look yet: the first is after 5 seeds, of which 2")


# Sensitivity.


def test_verdicts_that_hang_on_one_seed_say_so() -> None:
    values = arms(1.0, 5)
    assert row(values, 5)["fragile"] == []
    values["a"] = [90.9, 91.0, 91.1, 89.5, 90.95]
    found = row(values, 5)
    assert found["verdict"] == "inconclusive"
    assert found["fragile"] == [{"seeds": [3], "verdict": "reproduced"}]
    assert verdict_text.fragile(found) == "Fragile: without seed 3 reproduced."
    # each as the rule itself judges the rest
    for drop in range(5):
        rest = {arm: [x for s, x in enumerate(c) if s != drop] for arm, c in values.items()}
        expected = row(rest, 4)["verdict"]
        wanted = {"reproduced": [{"seeds": [3], "verdict": "reproduced"}]}.get(expected, [])
        assert [one for one in found["fragile"] if one["seeds"] == [drop]] == wanted


def test_sensitivity_keeps_the_family_and_drops_whole_units() -> None:
    records: Records = {}
    exp = experiment("e", {"a": [91.0, 91.2, 91.15, 91.15, 91.3], "b": [90.0] * 5}, records)
    for seed, teacher in enumerate(["t0", "t0", "t1", "t2", "t2"]):
        inputs = records[key("e", "a", seed)]["inputs"]
        inputs["parents"] = {"teacher": [{"key": teacher, "sha256": "x"}]}
    [found] = judge([claim(comparison())], "smoke", [exp], records)
    [one] = found["comparisons"]
    assert one["units"] == [[0, 1], [2], [3, 4]] and one["verdict"] == "reproduced"
    assert one["fragile"] == []
    absent = claim(*(comparison(experiment=f"x{i}") for i in range(6)), name="C-2")
    [found, _] = judge([claim(comparison()), absent], "smoke", [exp], records)
    [one] = found["comparisons"]
    assert one["verdict"] == "reproduced"
    assert {"seeds": [0, 1], "verdict": "inconclusive"} in one["fragile"]
    assert "without seed 0 and 1" in verdict_text.fragile(one)


def test_sensitivity_of_a_pooled_mean() -> None:
    records: Records = {}
    exps = pooled(records, 5)
    given_ = claim(comparison(experiment="e"), comparison(experiment="f"), pooled=True)
    [found] = judge([given_], "smoke", exps, records)
    mean = found["comparisons"][0]
    assert all(set(one) == {"seeds", "verdict"} for one in mean["fragile"])
    assert [one["seeds"] for one in mean["fragile"]] == sorted(
        one["seeds"] for one in mean["fragile"]
    )
