"""Contrasts of several arms and the figures beside a verdict, against scipy and by simulation."""

from __future__ import annotations

import copy
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories.project import PAPER, TIER, arms, comparison, refused, write
from factories.record import Json, Records, claim, diverge, experiment, key
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.evidence import build as evidence
from cyclery.evidence.stats import contrasts, paired_tests, sensitivity
from cyclery.evidence.stats.paired_tests import ALPHA, estimate
from cyclery.evidence.stats.rank_and_order_tests import Coefficient, Steps
from cyclery.evidence.verdicts import decide, judge
from cyclery.plan.project_checks import check
from cyclery.report import build as build_report
from cyclery.report import model, view

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


# Each contrast against scipy or a closed form.


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


@pytest.mark.parametrize("test", paired_tests.TESTS)
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


# Null hypotheses, by simulation.


def wrong(
    found: paired_tests.Source, test: paired_tests.Test = "superiority", margin: float = 0.0
) -> bool:
    ci95, ci90 = paired_tests.interval(found), paired_tests.interval(found, 0.9)
    return (
        decide(test, margin, ci95, ci90, paired_tests.p_value(found, test, margin), 1.0)
        == "reproduced"
    )


LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [3, 5, 10, pytest.param(20, marks=pytest.mark.slow)])
def test_false_reproduced_at_the_null_of_contrasts(law: str, n: int) -> None:
    """Arms of one law: no interaction, no trend, no correlation, no order."""
    rng = np.random.default_rng(n)
    draws = LAWS[law](rng, (SIMULATIONS, n, 4))
    weights = contrasts.trend_weights([1, 2, 4, 7], "log")
    counts = dict.fromkeys(("interaction", "trend", "kendall", "spearman", "ordering"), 0)
    for y in draws:
        counts["interaction"] += wrong(estimate(y @ [1, -1, -1, 1]))
        counts["trend"] += wrong(estimate(y @ weights))
        for name in ("kendall", "spearman"):
            found = [contrasts.rank_correlation([1, 2, 4, 7], row, name) for row in y]
            counts[name] += wrong(Coefficient(estimate(found)))
        counts["ordering"] += wrong(Steps(tuple(map(estimate, (y[:, :-1] - y[:, 1:]).T))))
    rates = {name: count / SIMULATIONS for name, count in counts.items()}
    assert max(rates.values()) <= LIMIT, rates


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize("test", ["superiority", "non-inferiority"])
def test_false_reproduced_where_one_step_of_an_order_is_at_the_margin(
    n: int, test: paired_tests.Test
) -> None:
    """The hardest null of an intersection-union test: all other steps are beyond doubt."""
    rng = np.random.default_rng(n)
    bound, count, missed = 0.5 if test == "superiority" else -0.5, 0, 0
    for y in rng.standard_normal((SIMULATIONS, n, 3)):
        steps = Steps(tuple(estimate(y[:, i] + mean) for i, mean in enumerate((bound, 30, 30))))
        count += wrong(steps, test, 0.5)
        ci = paired_tests.interval(steps)
        missed += ci is None or ci[1] < bound
    assert count / SIMULATIONS <= LIMIT
    assert missed / SIMULATIONS <= LIMIT / 2


@pytest.mark.parametrize("n", [3, 6, 10])
def test_an_order_that_just_holds_is_rarely_contradicted(n: int) -> None:
    """With all steps at the margin any of them may cross it, which the upper bound allows for."""
    rng = np.random.default_rng(n)
    refuted = 0
    for y in rng.standard_normal((SIMULATIONS, n, 5)):
        ci = paired_tests.interval(Steps(tuple(map(estimate, y.T))))
        refuted += ci is not None and ci[1] < 0
    assert refuted / SIMULATIONS <= 0.025 + 3 * sqrt(0.025 * 0.975 / SIMULATIONS)


@pytest.mark.parametrize("arms_", [3, 4, 8])
@pytest.mark.parametrize("n", [3, 6, 12])
def test_false_reproduced_of_correlations_between_two_metrics(arms_: int, n: int) -> None:
    rng = np.random.default_rng(n)
    count = 0
    for x, y in rng.standard_normal((SIMULATIONS, 2, n, arms_)):
        found = [contrasts.rank_correlation(a, b) for a, b in zip(x, y, strict=True)]
        count += wrong(Coefficient(estimate(found)))
    assert count / SIMULATIONS <= LIMIT


@pytest.mark.parametrize(("n", "share"), [(3, 0.5), (6, 0.5), (10, 0.5), (6, 0.9), (20, 0.9)])
def test_false_reproduced_of_coefficients_at_their_bounds(n: int, share: float) -> None:
    """A law with mass at 1 is the hardest where seeds are alike: its mean is at the margin."""
    rng = np.random.default_rng(n)
    margin = 2 * share - 1
    draws = np.where(rng.random((SIMULATIONS, n)) < share, 1.0, -1.0)
    count = sum(wrong(Coefficient(estimate(row)), "superiority", margin) for row in draws)
    assert count / SIMULATIONS <= LIMIT


def test_planted_order_is_found_with_the_power_that_is_promised() -> None:
    rng, steps = np.random.default_rng(1), np.array([0.8, 0.8, 0.8])
    seen = Steps(tuple(paired_tests.Estimate(m, 0.1, 9, 10, 1.0) for m in steps))
    n = seen.seeds_to_settle("superiority", 0.0, ALPHA)
    assert n is not None
    draws = rng.standard_normal((SIMULATIONS, n, 3)) + steps
    found = sum(wrong(Steps(tuple(map(estimate, y.T)))) for y in draws)
    assert found / SIMULATIONS >= 0.8 - 3 * sqrt(0.16 / SIMULATIONS)


# Data that lack something.


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
    assert contrasts.unequal_images(declared, found, filed) is None
    filed[key("f", "b", 1)]["images"] = 50
    text = contrasts.unequal_images(declared, found, filed)
    assert text == "'b' saw 50 samples and its comparator 100 in the same seed"
    trend = {"experiment": "e", "trend": {"values": {"a": 1, "b": 2}}}
    filed[key("e", "b", 0)]["images"] = 1
    found = contrasts.collect(trend, experiments, filed)
    assert "one of a, b saw" not in (contrasts.unequal_images(trend, found, filed) or "")
    assert contrasts.unequal_images(trend, found, filed) is not None


# Figures beside a verdict.


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


# The stated effect.


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


# Configuration.


def project(root: Path, **changes: Any) -> Path:
    """Write a project whose claim has this comparison."""
    paper = copy.deepcopy(PAPER)
    arms(paper).update(slow={"lr": 0.05})
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
    arms(paper).update(slow={"lr": 0.05})
    paper["claims"]["C-1"] |= {"pooled": True}
    paper["claims"]["C-1"]["comparisons"].append({"experiment": "main", "trend": {"values": THREE}})
    write(tmp_path, TIER, paper)
    with pytest.raises(UserError, match=r"pooled: needs comparisons of one kind"):
        load(tmp_path)


# The report.


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
    made = evidence.build("smoke", "p", paper, [exp], claims, filed, made="now")
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
    assert "sign-flip" in (tmp_path / "index.html").read_text()
