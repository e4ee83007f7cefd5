"""How often contrasts are reproduced wrongly, and found rightly, by simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from cyclery.evidence.stats import contrasts, paired_tests
from cyclery.evidence.stats.paired_tests import ALPHA, estimate
from cyclery.evidence.stats.rank_and_order_tests import Coefficient, Steps
from cyclery.evidence.verdicts import decide

RNG = np.random.default_rng(7)
SIMULATIONS = 1000
LIMIT = ALPHA + 3 * sqrt(ALPHA * (1 - ALPHA) / SIMULATIONS)


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
