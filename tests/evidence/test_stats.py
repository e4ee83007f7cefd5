"""Statistics against scipy, closed forms and hand-worked examples, and by simulation."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence.stats import paired_tests, random_effects
from cyclery.evidence.verdicts import decide

LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape),
}
SIMULATIONS = 1000
NUMBERS = st.lists(st.floats(-50, 50), min_size=3, max_size=30)


def verdict(values: np.ndarray, test: paired_tests.Test, margin: float) -> str:
    est = paired_tests.estimate(values)
    p = paired_tests.p_value(est, test, margin)
    opposite = paired_tests.p_value(est, test, margin, opposite=True)
    return decide(
        test, margin, paired_tests.interval(est), paired_tests.interval(est, 0.9), p, opposite
    )


def pair(n: int = 12, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal(90, 1, n)
    return base + rng.normal(0.4, 0.5, n), base


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_estimate_and_interval_equal_scipys_paired_t(n: int) -> None:
    a, b = pair(n)
    est = paired_tests.estimate(a - b)
    expected = scipy_stats.ttest_rel(a, b)
    for level in (0.9, 0.95, 0.99):
        ci = expected.confidence_interval(level)
        assert paired_tests.interval(est, level) == pytest.approx((ci.low, ci.high), rel=1e-9)
    assert paired_tests.p_value(est, "superiority") == pytest.approx(expected.pvalue, rel=1e-9)
    assert (est.n, est.df, est.sd) == (n, n - 1, pytest.approx(np.std(a - b, ddof=1)))


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_p_values_equal_scipys_one_sample_t(margin: float) -> None:
    d = np.subtract(*pair())
    est = paired_tests.estimate(d)
    two = scipy_stats.ttest_1samp(d, margin).pvalue
    above = scipy_stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert paired_tests.p_value(est, "superiority", margin) == pytest.approx(two, rel=1e-9)
    assert paired_tests.p_value(est, "non-inferiority", margin) == pytest.approx(above, rel=1e-9)
    assert paired_tests.p_value(est, "equivalence", margin) == pytest.approx(
        max(above, below), rel=1e-9
    )


@given(NUMBERS, st.floats(0.1, 5))
def test_p_and_interval_agree(values: list[float], margin: float) -> None:
    est = paired_tests.estimate(values)
    ci95, ci90 = paired_tests.interval(est), paired_tests.interval(est, 0.9)
    assume(ci95 is not None and ci90 is not None)
    assert ci95 is not None and ci90 is not None
    edges = [abs(abs(x) - margin) for x in (*ci95, *ci90)]
    assume(min(edges) > 1e-6)
    outside = ci95[0] > margin or ci95[1] < margin
    assert (paired_tests.p_value(est, "superiority", margin) < 0.05) == outside
    inside = -margin < ci90[0] and ci90[1] < margin
    assert (paired_tests.p_value(est, "equivalence", margin) < 0.05) == inside
    assert (paired_tests.p_value(est, "non-inferiority", margin) < 0.05) == (ci90[0] > -margin)


@given(NUMBERS)
def test_swapping_arms_negates_the_effect(values: list[float]) -> None:
    there, back = paired_tests.estimate(values), paired_tests.estimate([-x for x in values])
    assert back.effect == pytest.approx(-there.effect, abs=1e-12)
    assert paired_tests.p_value(back, "superiority") == pytest.approx(
        paired_tests.p_value(there, "superiority")
    )
    assert paired_tests.p_value(back, "equivalence", 1) == pytest.approx(
        paired_tests.p_value(there, "equivalence", 1)
    )
    if (ci := paired_tests.interval(there)) is not None:
        assert paired_tests.interval(back) == pytest.approx((-ci[1], -ci[0]), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "n"),
    [([0.3], 1), ([0.0] * 5, 5), ([0.5] * 3, 3), ([0.3, 0.1 + 0.2, 0.3], 3), ([1e-17, 0, 0], 3)],
)
def test_no_spread_no_evidence(values: list[float], n: int) -> None:
    """Fewer than two values, or all alike: neither interval nor p, for no test and margin."""
    est = paired_tests.estimate(values)
    assert (est.n, est.se, paired_tests.interval(est)) == (n, None, None)
    for test in paired_tests.TESTS:
        assert paired_tests.p_value(est, test, 1.0) == 1.0
    assert paired_tests.bca(values * 10) is None
    assert paired_tests.seeds_to_settle(est.effect, est.sd, 0.0, "superiority") is None


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [inf, 1.0]])
def test_estimate_refuses_what_is_no_sample(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value, all finite"):
        paired_tests.estimate(values)


def test_bca_starts_at_ten_and_equals_scipy() -> None:
    d = np.subtract(*pair(10))
    assert paired_tests.bca(d[:9]) is None
    expected = scipy_stats.bootstrap(
        (d,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert paired_tests.bca(d) == (expected.low, expected.high) == paired_tests.bca(list(d))
    low, high = paired_tests.interval(paired_tests.estimate(d)) or (0, 0)
    assert low < expected.low < expected.high < high


def test_bca_of_few_distinct_values_stays_silent() -> None:
    found = paired_tests.bca([0.0] * 11 + [0.5])
    assert found is None or found[0] <= found[1]


def test_holm_by_hand() -> None:
    # .01 x 4, .02 x 3, .03 x 2 = .06 = the running maximum, .04 x 1 raised to it
    assert paired_tests.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert paired_tests.holm([0.01, 0.04], family=4) == pytest.approx([0.04, 0.12])
    assert paired_tests.holm([0.01, 0.04, 1, 1]) == pytest.approx([0.04, 0.12, 1, 1])
    assert paired_tests.holm([0.6, 0.9]) == [1.0, 1.0]
    assert paired_tests.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni(p: list[float]) -> None:
    adjusted = paired_tests.holm(p)
    assert all(a <= b <= min(1, len(p) * a) + 1e-12 for a, b in zip(p, adjusted, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 50])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_equals_the_noncentral_t(n: int, alpha: float) -> None:
    for effect in (0.1, 0.5, 1.0):
        df, delta = n - 1, effect * sqrt(n)
        critical = scipy_stats.t.ppf(1 - alpha / 2, df)
        expected = scipy_stats.nct.sf(critical, df, delta)
        assert paired_tests.power(n, effect, 1, 0, "superiority", alpha) == pytest.approx(
            expected, abs=2e-3
        )
        assert paired_tests.power(n, effect - 1, 1, 1, "non-inferiority", alpha) == pytest.approx(
            scipy_stats.nct.sf(scipy_stats.t.ppf(1 - min(alpha, 0.025), df), df, delta), abs=2e-3
        )


def test_seeds_to_settle_are_the_fewest() -> None:
    cases: list[tuple[float, float, paired_tests.Test]] = [
        (0.3, 0.0, "superiority"), (0.1, 0.5, "equivalence"), (-0.1, 0.5, "non-inferiority"),
    ]  # fmt: skip
    for effect, margin, test in cases:
        for alpha in (0.05, 0.01):
            n = paired_tests.seeds_to_settle(effect, 0.7, margin, test, alpha)
            assert n is not None
            assert paired_tests.power(n, effect, 0.7, margin, test, alpha) >= 0.8
            assert paired_tests.power(n - 1, effect, 0.7, margin, test, alpha) < 0.8


def test_seeds_to_settle_of_the_cards_planning_figure() -> None:
    # "To see 0.2 pp at s.d. 0.5 with 80 % power takes about 50 paired seeds"
    assert paired_tests.seeds_to_settle(0.2, 0.5, 0.0, "superiority") == pytest.approx(50, abs=2)


def test_seeds_to_settle_counts_contradiction_and_gives_up() -> None:
    up = paired_tests.seeds_to_settle(0.2, 0.5, 0.0, "superiority")
    assert paired_tests.seeds_to_settle(-0.2, 0.5, 0.0, "superiority") == up
    # a contradiction is corrected for the family as a reproduction is
    corrected = paired_tests.seeds_to_settle(0.2, 0.5, 0.0, "superiority", alpha=0.001)
    assert paired_tests.seeds_to_settle(-0.2, 0.5, 0.0, "superiority", alpha=0.001) == corrected
    assert (corrected or 0) > (up or inf)
    assert paired_tests.seeds_to_settle(0.9, 0.5, 0.5, "equivalence") is not None
    assert paired_tests.seeds_to_settle(-0.9, 0.5, 0.5, "non-inferiority") is not None
    hopeless: list[tuple[float, float, paired_tests.Test]] = [
        (0.3, 0.3, "superiority"), (0.5, 0.5, "equivalence"), (-0.5, 0.5, "non-inferiority"),
        (1e-4, 0.0, "superiority"),
    ]  # fmt: skip
    for effect, margin, test in hopeless:
        assert paired_tests.seeds_to_settle(effect, 1.0, margin, test) is None
    assert paired_tests.seeds_to_settle(0.2, None, 0.0, "superiority") is None


# False and true verdicts by simulation.


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_false_reproduced_rate_at_the_boundary(law: str, n: int) -> None:
    """Two arms of one law (A/A), or shifted to the margin: at most alpha + 3 standard errors.

    Equivalence under the normal law has a true rate of exactly .05, so about one generator seed
    in a thousand fails by chance: that is why the seed is fixed.
    """
    rng = np.random.default_rng([len(law), n])
    arms = LAWS[law](rng, (2, SIMULATIONS, n))
    d = arms[0] - arms[1]
    most = (0.05 + 3 * sqrt(0.05 * 0.95 / SIMULATIONS)) * SIMULATIONS
    boundary: list[tuple[paired_tests.Test, float, float]] = [
        ("superiority", 0.0, 0.0), ("superiority", 1.0, 1.0),
        ("non-inferiority", 2.0, -2.0), ("equivalence", 10.0, 10.0), ("equivalence", 10.0, -10.0),
    ]  # fmt: skip
    for test, margin, shift in boundary:
        false = sum(verdict(row + shift, test, margin) == "reproduced" for row in d)
        assert false <= most, (test, margin, shift, false)
        # The level is used, not avoided: .05 for equivalence, .025 for the others.
        if law == "normal":
            assert false >= (10 if test != "equivalence" else 25), (test, false)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_the_interval_covers_as_published(law: str, n: int) -> None:
    """docs/evidence.md has the figures of 100,000 simulations: 95.0 to 97.5 %."""
    rng = np.random.default_rng([len(law), n, 7])
    arms = LAWS[law](rng, (2, SIMULATIONS, n))
    found = [paired_tests.interval(paired_tests.estimate(row)) for row in arms[0] - arms[1]]
    covered = sum(ci is not None and ci[0] <= 0 <= ci[1] for ci in found) / SIMULATIONS
    error = sqrt(0.05 * 0.95 / SIMULATIONS)
    assert 0.95 - 3 * error <= covered <= 0.975 + 3 * error


def test_false_reproduced_rate_on_a_coarse_grid() -> None:
    """Accuracies of 600 test images come in steps of 1/6 pp; few seeds often agree exactly."""
    rng = np.random.default_rng(8)
    for n in (3, 5, 10):
        d = rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=(SIMULATIONS, n)) / 6
        false = sum(verdict(row, "superiority", 0.0) == "reproduced" for row in d)
        assert false <= 70
        # True effect at the margin, of which most samples show nothing at all.
        d = rng.choice([0.0, 2.0], size=(SIMULATIONS, n))
        false = sum(verdict(row, "equivalence", 1.0) == "reproduced" for row in d)
        assert false <= 70


@pytest.mark.parametrize(
    ("test", "margin", "effect"),
    [("superiority", 0.0, 0.8), ("superiority", 0.5, 1.3), ("equivalence", 1.0, 0.1),
     ("non-inferiority", 0.5, 0.2)],
)  # fmt: skip
@pytest.mark.parametrize("n", [5, 10])
def test_planted_effects_are_found_at_the_stated_power(
    test: paired_tests.Test, margin: float, effect: float, n: int
) -> None:
    rng = np.random.default_rng(n)
    d = rng.normal(effect, 0.7, (SIMULATIONS, n))
    found = sum(verdict(row, test, margin) == "reproduced" for row in d) / SIMULATIONS
    assert found == pytest.approx(paired_tests.power(n, effect, 0.7, margin, test), abs=0.05)


# Pooling.


def test_der_simonian_laird_by_hand() -> None:
    # w = 4, 2, 1; fixed mean = (4 x .2 + 2 x .8 + 1 x 2) / 7 = 4.4 / 7;
    # Q = sum w (y - mean)^2; tau^2 = (Q - 2) / (7 - 21 / 7)
    y, v = np.array([0.2, 0.8, 2.0]), np.array([0.25, 0.5, 1.0])
    mean = 4.4 / 7
    q = 4 * (0.2 - mean) ** 2 + 2 * (0.8 - mean) ** 2 + (2 - mean) ** 2
    tau2 = (q - 2) / (7 - 21 / 7)
    w = 1 / (v + tau2)
    found = random_effects.der_simonian_laird(y, v)
    assert found == pytest.approx((w @ y / w.sum(), 1 / sqrt(w.sum()), tau2, q))
    assert tau2 == pytest.approx(59 / 350)


def test_der_simonian_laird_without_heterogeneity_is_the_fixed_mean() -> None:
    mean, se, tau2, _ = random_effects.der_simonian_laird(
        np.array([0.5, 0.5]), np.array([1.0, 3.0])
    )
    assert (mean, tau2) == (pytest.approx(0.5), 0.0)
    assert se == pytest.approx(1 / sqrt(1 + 1 / 3))


def sample(values: list[float], first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def test_one_experiment_pools_to_its_own_t_test() -> None:
    values = [0.3, 0.6, 0.1, 0.9]
    found, est = random_effects.pool([sample(values)]), paired_tests.estimate(values)
    assert found is not None and found.k == 1
    assert paired_tests.interval(found) == paired_tests.interval(est)
    assert paired_tests.p_value(found, "superiority") == paired_tests.p_value(est, "superiority")


def test_pool_covers_weighted_and_unweighted_mean() -> None:
    """Disjoint seeds, so nothing is shared; both intervals worked out in long hand."""
    groups = [[0.1, 0.3, 0.2], [1.0, 2.0, 1.4], [0.5, 1.5, 0.2]]
    samples = [sample(values, 10 * i) for i, values in enumerate(groups)]
    found = random_effects.pool(samples)
    assert found is not None
    y = np.array([np.mean(g) for g in groups])
    v = np.array([np.var(g, ddof=1) / 3 for g in groups])
    mean, se, tau2, q = random_effects.der_simonian_laird(y, v)
    assert (found.effect, found.tau2, found.q) == pytest.approx((mean, tau2, q))
    w = np.array(found.weights)
    t = scipy_stats.t.ppf(0.975, 2)
    half = t * sqrt(max(se**2, w @ (y - mean) ** 2 / 2))
    plain = t * sqrt(max(v.sum() / 9, y.var(ddof=1) / 3))
    assert paired_tests.interval(found) == pytest.approx(
        (min(mean - half, y.mean() - plain), max(mean + half, y.mean() + plain))
    )
    expected = max(2 * scipy_stats.t.sf(abs(mean / half * t), 2),
                   2 * scipy_stats.t.sf(abs(y.mean() / plain * t), 2))  # fmt: skip
    assert paired_tests.p_value(found, "superiority") == pytest.approx(expected)


def test_shared_seeds_widen_the_pooled_interval() -> None:
    noise = [0.5, -0.2, 0.1, 0.9, 0.2]
    apart = random_effects.pool([sample(noise), sample(noise, 10)])
    shared = random_effects.pool([sample(noise), sample(noise)])
    opposed = random_effects.pool([sample(noise), sample([0.6 - x for x in noise])])
    assert apart and shared and opposed
    assert shared.within == pytest.approx(2 * apart.within)
    assert opposed.within == pytest.approx(apart.within)
    wide, narrow = paired_tests.interval(shared), paired_tests.interval(apart)
    assert wide and narrow and wide[0] < narrow[0]


def test_pool_without_spread() -> None:
    assert random_effects.pool([sample([0.0] * 5), sample([0.0] * 5)]) is None
    assert random_effects.pool([sample([0.1]), sample([0.0, 0.2])]) is None
    assert random_effects.pool([]) is None
    found = random_effects.pool([sample([0.0] * 5), sample([0.1, 0.3, 0.2, 0.4, 0.2], 10)])
    assert found is not None and found.weights == pytest.approx((0.5, 0.5))


def test_pooled_means_on_both_sides_of_the_margin_are_no_evidence() -> None:
    ests = (
        paired_tests.Estimate(1.0, 0.01, 4, 5, None),
        paired_tests.Estimate(-1.0, 0.01, 4, 5, None),
    )
    assert (
        paired_tests.p_value(
            random_effects.Pool(1.0, 0.01, 0, 0, (0.5, 0.5), ests, 0.1), "superiority"
        )
        == 1.0
    )
    flat = (paired_tests.Estimate(1.0, None, 4, 5, None),)
    assert (
        paired_tests.interval(random_effects.Pool(1.0, 0.01, 0, 0, (0.5, 0.5), flat, 0.1)) is None
    )


def test_seeds_to_settle_a_pooled_claim() -> None:
    rng = np.random.default_rng(0)
    alike = [sample([-0.7, 0.3, 1.3, -0.1, 0.7], 10 * i) for i in range(6)]
    found = random_effects.pool(alike)
    assert found is not None
    few = random_effects.seeds_to_settle_pool(found, "superiority", 0.0)
    many = random_effects.seeds_to_settle_pool(found, "superiority", 0.0, alpha=0.001)
    assert few is not None and (many is None or many > few)
    for test in ("equivalence", "non-inferiority"):
        assert random_effects.seeds_to_settle_pool(found, test, 9.0) is not None
    unlike = [sample(list(rng.normal(5 * (-1) ** i, 0.1, 5)), 10 * i) for i in range(6)]
    found = random_effects.pool(unlike)
    assert found is not None
    assert random_effects.seeds_to_settle_pool(found, "superiority", 0.0) is None


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_false_reproduced_rate_of_pooled_claims(law: str, spread: float) -> None:
    """Unequal spreads, shared seeds, effects that differ: where the textbook interval fails."""
    rng = np.random.default_rng(len(law))
    runs, k, n = SIMULATIONS, 3, 5
    scale = np.array([0.05, 1.0, 1.0])
    arms = LAWS[law](rng, (2, runs, n, k)) + LAWS[law](rng, (2, runs, n, 1))
    d = (arms[0] - arms[1]) * scale + spread * rng.standard_normal((runs, 1, k))
    textbook = false = 0
    for one in d:
        found = random_effects.pool([sample(list(one[:, j])) for j in range(k)])
        assert found is not None
        ci = paired_tests.interval(found)
        assert ci is not None
        false += paired_tests.p_value(found, "superiority") < 0.05 and ci[0] > 0
        y, v = one.mean(axis=0), one.var(axis=0, ddof=1) / n
        mean, se, _, _ = random_effects.der_simonian_laird(y, v)
        textbook += mean > 1.96 * se
    assert false <= 70
    if spread and law == "normal":
        assert textbook > 70, "the corrections would not be needed"


@settings(max_examples=30)
@given(st.lists(NUMBERS.filter(lambda x: np.ptp(x) > 0.1), min_size=2, max_size=4))
def test_pooling_does_not_depend_on_order_or_sign(groups: list[list[float]]) -> None:
    samples = [sample(values) for values in groups]
    there, back = random_effects.pool(samples), random_effects.pool(samples[::-1])
    negated = random_effects.pool([{s: -x for s, x in one.items()} for one in samples])
    assert there and back and negated
    ci = paired_tests.interval(there)
    assert ci is not None
    assert paired_tests.interval(back) == pytest.approx(ci, rel=1e-6, abs=1e-6)
    assert paired_tests.interval(negated) == pytest.approx((-ci[1], -ci[0]), rel=1e-6, abs=1e-6)
