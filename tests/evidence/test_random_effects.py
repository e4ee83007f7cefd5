"""Pooled means against hand-worked examples, and by simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cyclery.evidence.stats import paired_tests, random_effects

LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape),
}
SIMULATIONS = 1000
NUMBERS = st.lists(st.floats(-50, 50), min_size=3, max_size=30)


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
