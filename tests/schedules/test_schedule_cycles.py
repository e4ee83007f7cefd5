"""Schedules that go up and down again, against the papers' known values and torch's schedulers."""

from __future__ import annotations

import numpy as np
import pytest
from factories.schedules import clock, epochs, optimiser, torch_rates
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from cyclery.common.errors import UserError
from cyclery.schedules import column
from cyclery.schedules.cycle import eta
from cyclery.schedules.triangular import WINDOWS


@pytest.mark.parametrize(
    ("count", "factor", "known"),
    [
        (11, 2, {0: 1, 1: 0.8, 2: 0.6, 3: 0.4, 5: 0, 9: 0.8, 10: 1}),
        (11, 4, {0: 1, 1: 0.6, 2: 0.2, 3: 0.066667, 5: 0.333333, 9: 0.866667, 10: 1}),
        (201, 4, {50: 0, 100: 0.333333, 199: 0.993333}),
        (200, 2, {99: 0.005025, 199: 1, 200: 1.010050}),
        (5, 1, {0: 1, 2: 0.5, 4: 0, 5: 0}),
        (1, 2, {0: 1}),
    ],
)
def test_eta_known_values(count: int, factor: float, known: dict[int, float]) -> None:
    got = eta(list(known), count, factor)
    np.testing.assert_allclose(got, list(known.values()), atol=5e-7)


@pytest.mark.parametrize(("count", "factor"), [(11, 2), (31, 3), (41, 4), (201, 4), (61, 2)])
def test_eta_is_one_minus_torchs_triangle(count: int, factor: int) -> None:
    up = (count - 1) // factor
    scheduler = CyclicLR(
        optimiser(), 0.0, 1.0, up, count - 1 - up, mode="triangular", cycle_momentum=False
    )
    np.testing.assert_allclose(
        eta(np.arange(count), count, factor), 1 - torch_rates(scheduler, count), atol=1e-12
    )


def test_temperature_known_values() -> None:
    # The official code counts 200 epochs and runs one more, in which it leaves the bounds.
    spec = {"kind": "cycle", "easy": 0.5, "hard": 2, "cooldown": 1, "clamp": False}
    values = column(spec, epochs(201))
    known = [0.5, 1.992462, 0.5, 0.484925]
    np.testing.assert_allclose(values[[0, 100, 199, 200]], known, atol=5e-7)
    assert column(spec | {"clamp": True}, epochs(201))[200] == 0.5


def test_orders_of_a_cycle() -> None:
    spec = {"kind": "cycle", "easy": 1, "hard": 5}

    def values(order: str, **more: float) -> list[float]:
        return column(spec | {"order": order} | more, epochs(5)).tolist()

    assert values("easy-hard-easy") == [1, 3, 5, 3, 1]
    assert values("hard-easy-hard") == [5, 3, 1, 3, 5]
    assert values("easy-hard") == values("easy-hard", factor=4) == [1, 2, 3, 4, 5]
    assert values("hard-easy") == [5, 4, 3, 2, 1]
    assert values("hard-easy", cooldown=1) == pytest.approx([5, 11 / 3, 7 / 3, 1, 1])
    with pytest.raises(UserError, match="cooldown: 5 leaves none of 5 epochs"):
        values("easy-hard", cooldown=5)


KNOWN_CLR = {"low": 0.001, "high": 0.006, "step_epochs": 4}


@pytest.mark.parametrize(
    ("settings", "first", "known"),
    [
        (
            {},
            0,
            [0.001, 0.00225, 0.0035, 0.00475, 0.006, 0.00475, 0.0035, 0.00225, 0.001],
        ),
        ({"mode": "triangular2"}, 9, [0.001625, 0.00225, 0.002875, 0.0035]),
        ({"mode": "exp_range", "gamma": 0.99}, 1, [0.0022375, 0.0034503, 0.0046386, 0.005803]),
        (
            {"mode": "exp_range_bounds", "gamma": 0.99},
            1,
            [0.0022275, 0.0034303, 0.0046089, 0.0057636],
        ),
        ({"mode": "exp_range_bounds", "gamma": 0.99}, 8, [0.0009227]),
    ],
)
def test_cyclical_rates_known_values(
    settings: dict[str, object], first: int, known: list[float]
) -> None:
    values = column({"kind": "triangular"} | KNOWN_CLR | settings, epochs(16))
    np.testing.assert_allclose(values[first : first + len(known)], known, atol=5e-8)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_triangular_equals_torch(mode: str, step: int) -> None:
    more = {"gamma": 0.97} if mode == "exp_range" else {}
    scheduler = CyclicLR(optimiser(), 0.001, 0.006, step, mode=mode, cycle_momentum=False, **more)
    spec = {"kind": "triangular", "low": 0.001, "high": 0.006, "step_epochs": step, "mode": mode}
    np.testing.assert_allclose(
        column(spec | more, epochs(60)), torch_rates(scheduler, 60), rtol=0, atol=1e-15
    )


def test_cycles_and_epochs_give_the_same_step() -> None:
    spec = {"kind": "triangular", "low": 0, "high": 1}
    by_cycles = column(spec | {"cycles": 5}, clock(400, 20))
    by_epochs = column(spec | {"step_epochs": 2}, clock(400, 20))
    np.testing.assert_allclose(by_cycles, by_epochs, atol=1e-12)


def test_end_is_gamma_to_the_number_of_updates() -> None:
    gamma = 0.015 ** (1 / 500)
    for spec in (
        {"kind": "exponential", "start": 0.1},
        {"kind": "triangular", "low": 0.1, "high": 1, "cycles": 5, "mode": "exp_range_bounds"},
    ):
        np.testing.assert_allclose(
            column(spec | {"end": 0.015}, clock(500)),
            column(spec | {"gamma": gamma}, clock(500)),
            rtol=1e-12,
        )


def test_windows_agree_at_their_ends() -> None:
    for window in WINDOWS.values():
        np.testing.assert_allclose(window(np.array([0.0, 1.0])), [1, 0], atol=1e-15)
    spec = {"kind": "triangular", "low": 0, "high": 1, "cycles": 1}
    for name, quarter in (("triangle", 0.25), ("welch", 0.4375), ("hann", 0.146447)):
        values = column(spec | {"window": name}, clock(80))
        assert values[10] == pytest.approx(quarter, abs=1e-6)
        assert values[40] == 1


@pytest.mark.parametrize("updates", [20, 37, 1000])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_equals_torch(updates: int, shape: str) -> None:
    strategy = "cos" if shape == "cosine" else "linear"
    spec = {"kind": "one_cycle", "peak": 1.0, "shape": shape}
    rates = torch_rates(OneCycleLR(optimiser(), 1.0, updates, anneal_strategy=strategy), updates)
    np.testing.assert_allclose(column(spec, clock(updates)), rates, atol=1e-12)
    # The inverse cycle of momentum is the same kind: 0.95, 0.85, 0.95.
    spec |= {"peak": 0.85, "start_div": 0.85 / 0.95, "final_div": 1}
    scheduler = OneCycleLR(optimiser(), 1.0, updates, anneal_strategy=strategy)
    momenta = torch_rates(scheduler, updates, "momentum")
    np.testing.assert_allclose(column(spec, clock(updates)), momenta, atol=1e-12)


def test_one_cycle_known_values() -> None:
    values = column({"kind": "one_cycle", "peak": 1.0}, clock(20))
    np.testing.assert_allclose(values[[0, 5, 12, 19]], [0.04, 1.0, 0.500002, 4e-06], atol=5e-7)
    assert column({"kind": "one_cycle", "peak": 1.0}, clock(1)).tolist() == [1.0]
    assert column({"kind": "one_cycle", "peak": 1.0}, clock(2))[0] == 1.0
