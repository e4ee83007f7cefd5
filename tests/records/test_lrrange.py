"""Readings of range-test curves on a known curve and on synthetic ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.records import range_bounds
from cyclery.records.range_bounds import bounds, combine, ema, median_of_5, readings

KNOWN_LR = 10.0 ** (-5 + np.arange(21) / 4)
KNOWN_LOSS = [
    2.30, 2.30, 2.29, 2.28, 2.26, 2.22, 2.16, 2.05, 1.90, 1.70, 1.50,
    1.32, 1.20, 1.12, 1.08, 1.06, 1.07, 1.15, 1.40, 2.2, 4.5,
]  # fmt: skip

HI = 1.0
LR = np.linspace(0, HI, 101)


def curve(rise: float = 0.05, full: float = 0.2, drop: float = 2.0) -> np.ndarray:
    """Accuracy of 10 classes: chance until ``rise``, 0.9 from ``full`` to ``drop``, then chance."""
    up = np.clip((LR - rise) / (full - rise), 0, 1)
    down = np.clip((LR - drop) / 0.1, 0, 1)
    return 0.1 + 0.8 * up * (1 - down)


def test_known_curve() -> None:
    assert range_bounds.valley(KNOWN_LOSS) == 7
    assert range_bounds.steep(KNOWN_LR, KNOWN_LOSS) == 9
    assert range_bounds.steepest_by_index(KNOWN_LOSS) == 9
    assert int(np.argmin(KNOWN_LOSS)) == 15
    assert KNOWN_LR[7] == pytest.approx(5.62e-4, rel=1e-3)
    assert KNOWN_LR[9] == pytest.approx(1.78e-3, rel=1e-3)
    assert KNOWN_LR[15] / 10 == pytest.approx(5.62e-3, rel=1e-3)


def test_valley_and_slide_edge_cases() -> None:
    assert range_bounds.valley([3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2]) == 3 - 1 + 0  # starts before 0
    assert range_bounds.valley([1.0, 2.0, 3.0]) == 0
    assert range_bounds.valley([2.0, 1.0]) == 0
    assert range_bounds.valley([]) is None
    assert range_bounds.slide([1.0] * 15) is None
    assert range_bounds.slide([1.0] * 40) == 24  # nothing moves: the pair at the right end
    # The gradient jumps between points 29 and 30, so pairs that straddle it differ: 29-15 = 14.
    kinked = np.concatenate([np.zeros(30), np.arange(1.0, 6.0)])
    assert range_bounds.slide(kinked) == 14


def test_smoothing() -> None:
    values = [1.0, 2.0, 4.0]
    assert ema(values, 0.95).tolist() == pytest.approx([1.0, 1.05, 1.1975])
    corrected = ema(values, 0.98, correct=True)
    assert corrected[0] == pytest.approx(1.0)
    assert corrected[1] == pytest.approx((0.98 * 1 + 2) / 1.98)
    assert corrected[2] == pytest.approx((0.98**2 * 1 + 0.98 * 2 + 4) / (0.98**2 + 1.98))
    assert len(ema([], 0.9)) == 0
    assert median_of_5([1, 9, 2, 3, 8]).tolist() == [2, 2.5, 3, 5.5, 3]


def sweep_loss(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return an exponential sweep whose loss falls around 1e-2 and explodes above 1."""
    lr = 10.0 ** np.linspace(-7, 1, n)
    return lr, 2.3 - 1.5 / (1 + (1e-2 / lr) ** 1.5) + np.minimum(lr, 10.0) ** 3


def test_readings_of_a_sweep() -> None:
    lr, loss = sweep_loss()
    found = readings(lr, loss)
    names = {"steepest", "valley", "minimum_10", "slide", "lr_finder_steepest"}
    assert set(found) == names
    assert all(value is not None and 1e-6 < value < 1 for value in found.values())
    assert found["valley"] < found["steepest"] < 10 * found["minimum_10"]


def test_readings_follow_each_tools_steps() -> None:
    lr, loss = sweep_loss()
    smooth = ema(loss, 0.98, correct=True)
    stop = int(np.flatnonzero(smooth > 4 * np.minimum.accumulate(smooth))[0])
    x, y = lr[10 : stop + 1 - 5], smooth[10 : stop + 1 - 5]
    found = readings(lr, loss)
    assert found["minimum_10"] == pytest.approx(x[np.argmin(y)] / 10)
    assert found["steepest"] == pytest.approx(x[np.argmin(np.diff(y) / np.diff(np.log(x)))])
    smooth = ema(loss, 0.95)
    stop = int(np.flatnonzero(smooth > 5 * np.minimum.accumulate(smooth))[0])
    x, y = lr[10 : stop + 1 - 5], smooth[10 : stop + 1 - 5]
    assert found["lr_finder_steepest"] == x[np.argmin(np.gradient(y))]


def test_readings_end_before_the_loss_is_not_finite() -> None:
    lr, loss = sweep_loss()
    loss[60:] = np.nan
    found = readings(lr, loss)
    assert all(value is not None and value <= lr[59] for value in found.values())
    assert all(value is None for value in readings(lr, np.full(100, np.nan)).values())
    assert all(value is None for value in readings([], []).values())


def test_rise_plateau_and_fall() -> None:
    found = bounds(LR, curve(drop=0.605), 10, HI)
    # A tenth of the rise is at 0.05 + 0.015 and a tenth of the fall at 0.605 + 0.01.
    assert found == {"base": pytest.approx(0.07), "max": pytest.approx(0.61), "flags": []}


def test_noise_of_single_evaluations_moves_neither_bound() -> None:
    accuracy = curve(drop=0.605)
    accuracy[[2, 30, 40]] = [0.9, 0.1, np.nan]
    found = bounds(LR, accuracy, 10, HI)
    assert found["base"] == pytest.approx(0.07) and found["max"] == pytest.approx(0.61)
    assert found["flags"] == [range_bounds.NOT_FINITE]


def test_accuracy_that_never_falls_is_flagged() -> None:
    found = bounds(LR, curve(), 10, HI)
    assert found["max"] == HI and found["flags"] == [range_bounds.NO_DROP]


def test_divergence_ends_the_range() -> None:
    accuracy = curve()
    accuracy[50:] = np.nan
    found = bounds(LR, accuracy, 10, HI)
    assert found["base"] == pytest.approx(0.07)
    assert found["max"] == pytest.approx(LR[49])
    assert found["flags"] == [range_bounds.NOT_FINITE]


def test_a_sweep_that_was_cut_short_ends_at_its_last_rate() -> None:
    found = bounds(LR[:50], curve()[:50], 10, HI)
    assert found["max"] == LR[49] and found["flags"] == [range_bounds.ENDED_EARLY]
    # The last evaluation may come a little before the end of a whole sweep.
    assert bounds(LR[:100], curve()[:100], 10, HI)["flags"] == [range_bounds.NO_DROP]
    assert bounds([0.3], [0.9], 10, HI)["flags"] == [range_bounds.ENDED_EARLY, range_bounds.NARROW]


@pytest.mark.parametrize("level", [0.1, 0.0, np.nan])
def test_accuracy_at_chance_is_flagged(level: float) -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(101)
    found = bounds(LR, level + noise, 10, HI)
    assert found["base"] == 1e-3 and found["max"] == HI
    assert found["flags"][-1] == range_bounds.NO_RISE
    assert bounds([], [], 10, HI)["flags"] == [range_bounds.NO_RISE]


def test_base_has_a_floor() -> None:
    lr = 10.0 ** np.linspace(-6, 0, 101)
    found = bounds(lr, np.where(lr < 0.5, 0.9, 0.1), 10, 1.0)
    assert found["base"] == 1e-3 and found["max"] == pytest.approx(lr[lr < 0.5][-1])
    assert found["flags"] == [range_bounds.AT_FLOOR]
    found = bounds(lr, np.where(lr < 5e-4, 0.9, 0.1), 10, 1.0)
    assert found["base"] == pytest.approx(found["max"] / 3)
    assert found["flags"] == [range_bounds.AT_FLOOR, range_bounds.NARROW]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        bounds([0.1, 0.2], [0.1, 0.2, 0.3], 10, 1.0)


def test_combining_seeds() -> None:
    one = {"base": 0.01, "max": 1.0, "flags": [range_bounds.NO_DROP]}
    two = {"base": 0.02, "max": 1.0, "flags": []}
    both = combine([one, two])
    assert both["base"] == pytest.approx(math.sqrt(0.0002)) and both["max"] == 1.0
    assert both["flags"] == [range_bounds.NO_DROP]
    assert combine([one, two | {"base": 0.04}])["flags"] == [
        range_bounds.NO_DROP,
        range_bounds.DIFFER,
    ]
    single = combine([two])
    assert single["base"] == 0.02
    with pytest.raises(ValueError, match="no bounds"):
        combine([])


wild = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(wild, max_size=60), st.integers(2, 100))
def test_any_curve_gives_a_range(values: list[float], classes: int) -> None:
    lr = np.linspace(0, 2, len(values))
    with np.errstate(all="ignore"):
        found = bounds(lr, values, classes, 2.0)
        readings(lr, values)
    assert 0 < found["base"] < found["max"] <= 2.0
    assert combine([found])["max"] == found["max"]
