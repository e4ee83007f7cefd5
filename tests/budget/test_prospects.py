"""Chances that later looks decide a comparison: against simulation, and in what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cyclery.budget.prospects import chances, spread, unseen
from cyclery.evidence.stats import alpha_spending
from cyclery.evidence.stats.paired_tests import ALPHA, estimate, interval


def at_20(effect: float, n: int = 10, sd: float = 1.0, **changes: object) -> tuple[float, ...]:
    given: dict[str, object] = {
        "test": "superiority", "margin": 0.0, "planned": 20, "reached": n // 5, "left": (10, 10),
    }  # fmt: skip
    return chances(effect=effect, sd=sd, n=n, **{**given, **changes})  # type: ignore[arg-type]


def test_a_larger_effect_is_likelier_to_be_decided_either_way() -> None:
    found = [at_20(effect)[-1] for effect in (0.0, 0.4, 0.8, 1.2, 2.0, 4.0)]
    assert found == sorted(found) and found[0] < 0.01 and found[-1] > 0.99
    assert at_20(-0.8) == pytest.approx(at_20(0.8))
    # Only what it is in spreads counts.
    assert at_20(40.0, sd=50.0) == pytest.approx(at_20(0.8))
    # A later look has more chance than an earlier one, which may spend almost nothing.
    assert at_20(0.8)[0] < at_20(0.8)[1]
    # The fewer tests are left in the family, the lower is the bar.
    assert at_20(0.8, left=(1, 10))[1] > at_20(0.8)[1]


def test_other_tests_are_decided_for_and_against() -> None:
    inside, edge, outside = (
        at_20(effect, test="equivalence", margin=1.0)[-1] for effect in (0.0, 1.0, 2.5)
    )
    assert edge < 0.1 < 0.6 < inside and outside > 0.9
    for effect, likely in ((1.0, True), (-1.0, False), (-3.0, True)):
        found = at_20(effect, test="non-inferiority", margin=1.0)[-1]
        assert (found > 0.9) is likely


def test_chances_are_those_of_a_simulation() -> None:
    """Effects of the prior, 10 seeds of them, and what the rule says after 20."""
    rng = np.random.default_rng(3)
    runs, left = 1500, 8
    x = rng.standard_normal((runs, 20)) + stats.cauchy.rvs(size=(runs, 1), random_state=rng)
    level = alpha_spending.levels(ALPHA / left / 2, 20)[-1]
    t = x.mean(axis=1) / x.std(axis=1, ddof=1) * np.sqrt(20)
    decided = 2 * level > 2 * stats.t.sf(abs(t), 19)
    predicted = np.array([
        at_20(float(one[:10].mean()), sd=float(one[:10].std(ddof=1)), left=(left, left))[-1]
        for one in x
    ])  # fmt: skip
    assert predicted.mean() == pytest.approx(decided.mean(), abs=0.02)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        some = (low <= predicted) & (predicted < high)
        assert predicted[some].mean() == pytest.approx(decided[some].mean(), abs=0.1)
    assert unseen(20, 1, left)[-1] == pytest.approx(decided.mean(), abs=0.04)


def test_units_and_first_looks() -> None:
    # Three seeds to a teacher: looks after 3, 5 and 7 units.
    assert len(unseen(20, 3, 1)) == 3
    assert len(chances("superiority", 0, 1.0, 1.0, 3, 20, 3, 1)) == 2
    # One unit is planned: nothing can be decided.
    assert unseen(1, 1, 1) == (0.0,)


def test_the_spread_is_read_off_the_interval() -> None:
    data = estimate([1.0, 2.0, 4.0, 3.5, 0.5])
    assert spread(interval(data), 5) == pytest.approx(data.sd)
    for nothing in (None, (1.0, 1.0), (0.0, float("inf")), (None, 1.0)):
        assert spread(nothing, 5) is None  # type: ignore[arg-type]
    assert spread((0.0, 1.0), 1) is None
