"""Contrasts of several arms and the figures beside a verdict, against scipy."""

from __future__ import annotations

from math import sqrt
from typing import Any, get_args

import numpy as np
import pytest
from factories.record import Json, Records, claim, diverge, experiment, key
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence.stats import contrasts, paired_tests, sensitivity
from cyclery.evidence.stats.paired_tests import ALPHA, estimate
from cyclery.evidence.stats.rank_and_order_tests import Coefficient
from cyclery.evidence.verdicts import judge
from cyclery.records.claims import Test

RNG = np.random.default_rng(7)
SIMULATIONS = 1000
LIMIT = ALPHA + 3 * sqrt(ALPHA * (1 - ALPHA) / SIMULATIONS)
VALUES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 7.0}
Y = {arm: list(80 + i + RNG.normal(0, 0.4, 6)) for i, arm in enumerate(VALUES)}


def one(values: dict[str, list[float | None]], *more: Json, **changes: Any) -> Json:
    """Judge one contrast on the experiment ``e`` (and others)."""
    filed: Records = {}
    found = [experiment("e", values, filed)]
    found += [experiment(f"f{i}", other, filed) for i, other in enumerate(more)]
    declared = {"experiment": "e", "metric": "test_accuracy", "test": "superiority",
                "margin": 0.0, **changes}  # fmt: skip
    [out] = judge([claim(declared, planned_seeds=None)], "smoke", found, filed)
    [row] = out["comparisons"]
    return {**row, "claim": out}


def array(values: dict[str, list[float]]) -> np.ndarray:
    return np.array([values[arm] for arm in VALUES])


def test_an_interaction_is_the_difference_of_differences() -> None:
    other = {arm: list(RNG.normal(70, 1, 6)) for arm in ("a", "c")}
    second = {"experiment": "f0", "arm": "c", "against": None, "metric": None}
    row = one(Y, other, arm="b", against="a", interaction=second)
    here = np.subtract(Y["b"], Y["a"])
    expected = scipy_stats.ttest_rel(here, np.subtract(other["c"], other["a"]))
    assert (row["kind"], row["n"]) == ("interaction", 6)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["ci95"] == pytest.approx(tuple(expected.confidence_interval()))
    assert row["keys"][0] == [key("e", "b", 0), key("e", "a", 0), key("f0", "c", 0),
                              key("f0", "a", 0)]  # fmt: skip
    assert row["label"] == "B against A, more than C against A in f0"
    assert row["columns"] == ["B", "A", "C", "A"] and len(row["beside"]["iqm"]) == 4


@pytest.mark.parametrize("scale", ["linear", "log", "rank"])
def test_a_trend_is_the_rise_of_scipys_line(scale: str) -> None:
    row = one(Y, trend={"values": VALUES, "scale": scale})
    x = np.array(list(VALUES.values()))
    x = {"linear": x, "log": np.log(x), "rank": np.arange(4.0)}[scale]
    slopes = [scipy_stats.linregress(x, y).slope * np.ptp(x) for y in array(Y).T]
    assert row["differences"] == pytest.approx(slopes)
    assert row["p"] == pytest.approx(scipy_stats.ttest_1samp(slopes, 0).pvalue)
    assert (row["kind"], row["unit"], row["verdict"]) == ("trend", "pp", "reproduced")
    down = one(Y, trend={"values": VALUES, "scale": scale}, lower_is_better=True)
    assert down["effect"] == pytest.approx(-row["effect"])
    assert down["verdict"] == "contradicted"


def test_a_trend_with_blocks_is_the_slope_beside_a_height_for_each_of_them() -> None:
    # Unbalanced, so that what stands between the blocks must be taken out.
    values, blocks = {"a": 1, "b": 4, "c": 2, "d": 16}, [["a", "c"], ["b", "d"]]
    row = one(Y, trend={"values": values, "scale": "log", "blocks": blocks})
    x = np.log(list(values.values()))
    design = np.array([x, [1, 0, 1, 0], [0, 1, 0, 1]]).T
    y = np.array([Y[arm] for arm in values])
    slopes = np.linalg.lstsq(design, y, rcond=None)[0][0]
    assert row["differences"] == pytest.approx(slopes * np.log(16))
    # A block that stands higher moves nothing.
    higher = {arm: [y + 30 * (arm in blocks[0]) for y in Y[arm]] for arm in Y}
    moved = one(higher, trend={"values": values, "scale": "log", "blocks": blocks})
    assert moved["differences"] == pytest.approx(row["differences"])


@pytest.mark.parametrize(
    ("coefficient", "expected", "letter"),
    [("kendall", scipy_stats.kendalltau, "τ"), ("spearman", scipy_stats.spearmanr, "ρ")],
)
def test_a_rank_correlation_is_scipys(coefficient: str, expected: Any, letter: str) -> None:
    noisy = {arm: list(80 + RNG.normal(0, 1, 6)) for arm in VALUES}
    row = one(noisy, rank_correlation={"values": VALUES, "coefficient": coefficient})
    found = [expected(list(VALUES.values()), y).statistic for y in array(noisy).T]
    assert row["differences"] == pytest.approx(found)
    assert (row["unit"], row["kind"]) == (letter, "rank correlation")
    other = {"arms": list(VALUES), "metric": "log:test_accuracy", "coefficient": coefficient}
    assert one(noisy, rank_correlation=other)["differences"] == pytest.approx([1.0] * 6)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=9))
def test_coefficients_with_ties_are_scipys(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    tau, rho = scipy_stats.kendalltau(x, y).statistic, scipy_stats.spearmanr(x, y).statistic
    assert contrasts.rank_correlation(x, y) == pytest.approx(tau)
    assert contrasts.rank_correlation(x, y, "spearman") == pytest.approx(rho)


def test_an_ordering_is_an_intersection_union_test() -> None:
    row = one(Y, ordering=["d", "c", "b", "a"])
    steps = [np.subtract(Y[a], Y[b]) for a, b in ("dc", "cb", "ba")]
    tests = [scipy_stats.ttest_1samp(step, 0) for step in steps]
    weakest = min(steps, key=np.mean)
    assert row["p"] == pytest.approx(max(t.pvalue for t in tests))
    low = min(t.confidence_interval(0.95).low for t in tests)
    high = min(t.confidence_interval(1 - 0.05 / 3).high for t in tests)
    assert row["ci95"] == pytest.approx((low, high))
    assert row["differences"] == pytest.approx(list(weakest))
    assert row["effect"] == pytest.approx(weakest.mean())
    assert row["verdict"] == "reproduced" and "smallest step" in row["detail"]
    assert row["bca95"] is None
    swapped = one(Y, ordering=["d", "a", "c", "b"])
    steps = [np.subtract(Y[a], Y[b]) for a, b in ("da", "ac", "cb")]
    tails = [scipy_stats.ttest_1samp(step, 0, alternative="less").pvalue for step in steps]
    assert swapped["verdict"] == "contradicted"
    assert swapped["p"] == pytest.approx(2 * 3 * min(tails))


def test_a_perfect_order_in_every_seed_is_evidence_from_six_seeds_on() -> None:
    """Without spread the t test knows nothing; the bounds of the coefficient do."""
    for n, verdict in ((5, "inconclusive"), (6, "reproduced")):
        perfect = {arm: [80.0 + i] * n for i, arm in enumerate(VALUES)}
        row = one(perfect, rank_correlation={"values": VALUES, "coefficient": "kendall"})
        exact = scipy_stats.binomtest(n, n).proportion_ci(0.95, method="exact").low
        assert row["ci95"] == pytest.approx((2 * exact - 1, 1.0))
        assert row["p"] == pytest.approx(min(1.0, 2 * 0.5**n))
        assert row["verdict"] == verdict
    short = {arm: column[:5] for arm, column in perfect.items()}
    row = one(short, rank_correlation={"values": VALUES, "coefficient": "kendall"})
    assert row["seeds_to_settle"] == 6


@pytest.mark.parametrize("test", get_args(Test))
def test_p_and_interval_of_coefficients_agree(test: paired_tests.Test) -> None:
    for c in (-1.0, -0.4, 0.2, 0.8, 1.0):
        for n in (2, 4, 8, 30):
            found = Coefficient(estimate([c] * n))
            low, high = paired_tests.interval(found) or (0, 0)
            low90, high90 = paired_tests.interval(found, 0.9) or (0, 0)
            for margin in (0.1, 0.3, 0.6):
                p = paired_tests.p_value(found, test, margin)
                assert 0 <= p <= 1
                if test == "superiority":
                    assert (p < 0.05) == (low > margin or high < margin)
                elif test == "equivalence":
                    assert (p < 0.05) == (-margin < low90 and high90 < margin)
                else:
                    assert (p < 0.05) == (low90 > -margin)
    assert paired_tests.interval(Coefficient(estimate([1.0]))) is None
    assert paired_tests.p_value(Coefficient(estimate([1.0])), test, 0.5) == 1.0


def test_a_seed_counts_only_with_all_of_its_arms() -> None:
    values: dict[str, list[float | None]] = {arm: list(column) for arm, column in Y.items()}
    values["b"][2] = None
    filed: Records = {}
    exp = experiment("e", values, filed)
    diverge(filed, key("e", "d", 4))
    declared = {"experiment": "e", "trend": {"values": VALUES}, "test": "superiority", "margin": 0}
    [out] = judge([claim(declared, planned_seeds=None)], "smoke", [exp], filed)
    [row] = out["comparisons"]
    assert row["seeds"] == [0, 1, 3, 5]
    assert row["left_out"] == ["seed 2: 'b' is not run", "seed 4: 'd' diverged at step 7"]


def test_arms_that_are_alike_have_no_order() -> None:
    values = {arm: [80.0 + i, 81.0, 80.0 + i] for i, arm in enumerate(VALUES)}
    row = one(values, rank_correlation={"values": VALUES})
    assert row["seeds"] == [0, 2]
    assert row["left_out"] == ["seed 1: all arms are alike, so they have no order"]


def test_contrasts_without_runs_say_what_is_missing() -> None:
    row = one({"a": Y["a"], "b": Y["b"]}, trend={"values": VALUES})
    assert (row["verdict"], row["reason"]) == ("not run", "Arm 'c' of 'e' is not run at this tier.")
    row = one({**Y, "d": [None] * 6}, ordering=["a", "b", "c", "d"])
    assert row["reason"] == "No run of 'd' yet."
    row = one(Y, arm="b", against="a", interaction={"experiment": "g"})
    assert row["reason"] == "Experiment 'g' is not run at this tier."


def test_budgets_of_an_interaction_are_those_of_each_difference() -> None:
    filed: Records = {}
    experiments = {
        "e": experiment("e", {"a": [80, 81], "b": [80, 82]}, filed, images=800),
        "f": experiment("f", {"a": [80, 81], "b": [80, 82]}, filed, images=100),
    }
    declared = {"experiment": "e", "arm": "b", "against": "a", "interaction": {"experiment": "f"}}
    found = contrasts.collect(declared, experiments, filed)
    assert contrasts.unequal_budgets(declared, found, filed) is None
    filed[key("f", "b", 1)]["images"] = 50
    text = contrasts.unequal_budgets(declared, found, filed)
    assert text == "'b' saw 50 samples and its comparator 100 in the same seed"
    trend = {"experiment": "e", "trend": {"values": {"a": 1, "b": 2}}}
    filed[key("e", "b", 0)]["images"] = 1
    found = contrasts.collect(trend, experiments, filed)
    assert "one of a, b saw" not in (contrasts.unequal_budgets(trend, found, filed) or "")
    assert contrasts.unequal_budgets(trend, found, filed) is not None


@pytest.mark.parametrize("n", [3, 5, 10, 15])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_sign_flips_are_scipys_permutation_test(n: int, margin: float) -> None:
    x = np.random.default_rng(n).normal(0.4, 1, n)

    def expected(values: np.ndarray, alternative: str) -> float:
        found = scipy_stats.permutation_test(
            (values,), np.mean, permutation_type="samples", alternative=alternative,
            n_resamples=np.inf, vectorized=True,
        )  # fmt: skip
        return float(found.pvalue)

    assert sensitivity.sign_flip(x, "superiority", margin) == pytest.approx(
        expected(x - margin, "two-sided")
    )
    above, below = expected(x + margin, "greater"), expected(x - margin, "less")
    assert sensitivity.sign_flip(x, "non-inferiority", margin) == pytest.approx(above)
    assert sensitivity.sign_flip(x, "equivalence", margin) == pytest.approx(max(above, below))


def test_many_seeds_are_flipped_at_random_and_always_alike() -> None:
    x = np.random.default_rng(3).normal(0.35, 1, 40)
    found = sensitivity.sign_flip(x, "superiority")
    assert found == sensitivity.sign_flip(x, "superiority")
    assert found == pytest.approx(scipy_stats.ttest_1samp(x, 0).pvalue, abs=0.01)
    assert sensitivity.sign_flip(np.full(5, 0.3), "superiority") == 2 / 2**5


def test_improvement_and_interquartile_mean() -> None:
    assert sensitivity.improvement([1, 2, 0, -1]) == 0.625
    # The paired form is the statistic of the sign test.
    x = RNG.normal(0.2, 1, 21)
    test = scipy_stats.binomtest(int((x > 0).sum()), x.size)
    assert sensitivity.improvement(x) == pytest.approx(test.statistic)
    assert sensitivity.interquartile_mean([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert sensitivity.interquartile_mean([1, 2, 6]) == 3
    assert sensitivity.interquartile_mean(x) == pytest.approx(scipy_stats.trim_mean(x, 0.25))


def test_figures_stand_beside_a_verdict_and_do_not_move_it() -> None:
    row = one(Y, arm="b", against="a")
    assert row["beside"]["p_sign_flip"] == 2 / 2**6
    assert row["beside"]["iqm"] == pytest.approx(
        [scipy_stats.trim_mean(Y[arm], 0.25) for arm in "ba"]
    )
    assert row["beside"]["improvement"] == 1.0
    assert row["p"] == pytest.approx(scipy_stats.ttest_rel(Y["b"], Y["a"]).pvalue)
    constant = one(Y, arm="b", against={"constant": 70})
    assert len(constant["beside"]["iqm"]) == 1


def test_seeds_for_a_stated_effect() -> None:
    row = one(Y, arm="b", against="a", effect=0.5)
    needed = paired_tests.seeds_to_settle(0.5, row["sd"], 0, "superiority")
    assert row["seeds_for_power"] == row["claim"]["seeds_for_power"] == needed
    for n, enough in ((needed, True), (needed - 1, False)):
        df, delta = n - 1, 0.5 / row["sd"] * sqrt(n)
        power = scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, df), df, delta)
        assert (power >= 0.8 - 2e-3) == enough
    wide = one(Y, arm="b", against="a", effect=0.5, spread=2.0)
    assert wide["seeds_for_power"] == paired_tests.seeds_to_settle(0.5, 2.0, 0, "superiority")
    assert wide["verdict"] == row["verdict"]
    assert one(Y, arm="b", against="a")["seeds_for_power"] is None
    alone = one({"a": [80.0], "b": [81.0]}, arm="b", against="a", effect=0.5)
    assert alone["seeds_for_power"] is None
    order = one(Y, ordering=["d", "c", "b", "a"], effect=0.5, spread=1.0)
    assert order["seeds_for_power"] == paired_tests.seeds_to_settle(
        0.5, 1.0, 0, "superiority", wanted=1 - 0.2 / 3
    )
