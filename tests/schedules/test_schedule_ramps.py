"""Schedules that rise or fall once, against the papers' known values and torch's schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories.schedules import clock, epochs, optimiser, torch_rates
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, column


def test_cosine_equals_torch_and_warms_up() -> None:
    scheduler = CosineAnnealingLR(optimiser(0.3), 50, eta_min=0.001)
    spec = {"kind": "cosine", "peak": 0.3, "end": 0.001}
    np.testing.assert_allclose(column(spec, clock(50)), torch_rates(scheduler, 50), atol=1e-12)
    warm = column(spec | {"warmup_epochs": 2, "warmup_start": 0.1}, clock(70, 7))
    np.testing.assert_allclose(warm[:20], 0.1 + 0.2 * np.arange(20) / 20)
    np.testing.assert_allclose(warm[20:], column(spec, clock(50)))
    with pytest.raises(UserError, match="warmup_epochs: 7 of 7 epochs leave none"):
        column(spec | {"warmup_epochs": 7}, clock(70, 7))


def test_decay_piecewise_linear_and_sweep() -> None:
    decay = column({"kind": "decay", "high": 0.007, "low": 0.001, "over": 0.5}, clock(8))
    np.testing.assert_allclose(decay, [0.007, 0.0055, 0.004, 0.0025] + [0.001] * 4)
    drops = column({"kind": "piecewise", "value": 1, "drops": [0.1, 0.5]}, clock(30))
    np.testing.assert_allclose(drops, [1.0] * 3 + [0.1] * 12 + [0.01] * 15)
    linear = column({"kind": "linear", "start": 0, "end": 1}, clock(4))
    assert linear.tolist() == [0, 0.25, 0.5, 0.75]
    sweep = column({"kind": "exp_sweep", "start": 1e-3, "end": 10}, clock(5))
    np.testing.assert_allclose(sweep, [1e-3, 1e-2, 1e-1, 1, 10])
    assert column({"kind": "exp_sweep", "start": 1, "end": 10}, clock(1)).tolist() == [1]


def test_mean_teacher_ramps_known_values() -> None:
    # Ramp-up over 40,000 of 150,000 updates, ramp-down over the last 25,000.
    up = column(
        {"kind": "ramp", "end": 1, "over": 40_000 / 150_000, "shape": "sigmoid"}, clock(150_000)
    )
    np.testing.assert_allclose(up[[0, 20_000]], [0.006738, 0.286505], atol=5e-7)
    assert (up[39_999] < 1) and (up[40_000:] == 1).all()
    down = column({"kind": "ramp_down", "value": 2, "over": 25_000 / 150_000}, clock(150_000)) / 2
    assert (down[:125_001] == 1).all() and down[125_001] < 1
    assert down[137_500] == pytest.approx(math.exp(-12.5 / 4))
    # What it would be after the last update is exp(-12.5), and the last is 1/25,000 before.
    assert down[-1] == pytest.approx(math.exp(-12.5 * (1 - 1 / 25_000) ** 2), rel=1e-9)
    assert down[-1] == pytest.approx(3.7e-6, abs=5e-8)


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
@pytest.mark.parametrize("updates", [1, 7, 1000])
def test_ramps_equal_torch(updates: int, shape: str) -> None:
    length = 0.4 * updates

    def rise(t: int) -> float:
        if t >= length:
            return 1.0
        return t / length if shape == "linear" else math.exp(-5 * (1 - t / length) ** 2)

    def fall(t: int) -> float:
        left = updates - t
        return math.exp(-12.5 * (1 - left / length) ** 2) if left < length else 1.0

    both = {
        "kind": "product",
        "of": [
            {"kind": "ramp", "end": 0.003, "shape": shape},
            {"kind": "ramp_down", "value": 1, "over": 0.4},
        ],
    }
    rates = torch_rates(LambdaLR(optimiser(0.003), lambda t: rise(t) * fall(t)), updates)
    np.testing.assert_allclose(column(both, clock(updates)), rates, rtol=1e-12)


def test_a_ramp_runs_between_any_two_values() -> None:
    down = column({"kind": "ramp", "start": 1, "end": 0.5, "over": 0.5}, clock(8))
    np.testing.assert_allclose(down, [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5])
    sigmoid = {"kind": "ramp", "start": 1, "end": 0.5, "over": 0.5, "shape": "sigmoid"}
    assert column(sigmoid, clock(8))[2] == pytest.approx(1 - 0.5 * math.exp(-5 / 4))


def test_cosine_arc_equals_torch() -> None:
    total = 640
    scheduler = LambdaLR(optimiser(0.03), lambda t: math.cos(7 * math.pi * t / (16 * total)))
    values = column({"kind": "cosine_arc", "peak": 0.03}, clock(total))
    np.testing.assert_allclose(values, torch_rates(scheduler, total), rtol=1e-12)
    # At t = T, one update after the last, it would be 19.5 % of the peak.
    assert column({"kind": "cosine_arc", "peak": 1}, clock(2**20))[-1] == pytest.approx(
        0.195090, abs=2e-6
    )
    quarter = column({"kind": "cosine_arc", "peak": 1, "arc": 0.5}, clock(4))
    np.testing.assert_allclose(quarter, np.cos(np.pi * np.arange(4) / 8))


def test_running_mean_averages_all_weights_so_far() -> None:
    values = column({"kind": "running_mean", "end": 0.79}, clock(5))
    np.testing.assert_allclose(values, [1 / 2, 2 / 3, 3 / 4, 0.79, 0.79])
    weights = np.array([4.0, 1.0, -2.0, 7.0, 5.0, 3.0])
    average = weights[0]
    for t, decay in enumerate(column({"kind": "running_mean", "end": 1}, clock(5))):
        average = decay * average + (1 - decay) * weights[t + 1]
        assert average == pytest.approx(weights[: t + 2].mean())


def test_a_delayed_running_mean_is_the_warm_up_of_de_et_al() -> None:
    values = column({"kind": "running_mean", "end": 0.99, "delay": 9}, clock(1000))
    assert values[0] == pytest.approx(1 / 10)
    # min(0.99, (1 + t) / (10 + t)) reaches 0.99 after update 890.
    np.testing.assert_allclose(values, [min(0.99, (1 + t) / (10 + t)) for t in range(1000)])
    assert (values < 0.99).sum() == 890


def test_an_exponential_towards_a_value_has_the_forms_of_signal_annealing() -> None:
    # UDA (arXiv 1904.12848), section 3.3, with t = k / K: 1 - exp(-5 t), exp(5 (t - 1)).
    t = np.arange(100) / 100
    log = {"kind": "exponential", "start": 0, "towards": 1, "end": math.exp(-5)}
    np.testing.assert_allclose(column(log, clock(100)), 1 - np.exp(-5 * t), atol=1e-12)
    exp = {"kind": "exponential", "start": math.exp(-5), "end": math.exp(5)}
    np.testing.assert_allclose(column(exp, clock(100)), np.exp(5 * (t - 1)), rtol=1e-12)


@pytest.mark.parametrize("per_epoch", [1, 3])
@pytest.mark.parametrize(
    ("shape", "wait", "weight"),
    [
        ("linear", 1, lambda k, total: k / total),
        ("cosine", 1, lambda k, total: math.cos(math.pi / 2 * (1 - k / total))),
        ("circle", 1, lambda k, total: math.sqrt(1 - (1 - k / total) ** 2)),
        # Zero while k - 1 < 50, then at once the whole; and the whole from the second epoch on.
        ("step", 50, lambda k, total: float(k - 1 >= 50)),
        ("step", 1, lambda k, total: 1.0),
    ],
)
def test_soteachers_weights_equal_their_closed_forms(shape, wait, weight, per_epoch) -> None:
    total, largest = 240, 0.7
    spec = {"kind": "epoch_ramp", "end": largest, "wait": wait, "shape": shape}
    expected = [0.0] + [largest * weight(k, total) for k in range(2, total + 1)]
    values = column(spec, clock(total * per_epoch, total))
    np.testing.assert_allclose(values, np.repeat(expected, per_epoch), rtol=1e-12)
    assert values[-1] == largest


def test_an_epoch_ramp_counts_epochs_of_any_length() -> None:
    time = Clock(np.array([0, 0, 0, 1, 2, 2]), 3)
    values = column({"kind": "epoch_ramp", "start": 5, "end": 2}, time)
    np.testing.assert_allclose(values, [4, 4, 4, 3, 2, 2])
    waited = column({"kind": "epoch_ramp", "start": 5, "end": 2, "wait": 2}, time)
    assert waited.tolist() == [5, 5, 5, 5, 2, 2]
    with pytest.raises(UserError, match="wait: 3 leaves none of 3 epochs to ramp in"):
        column({"kind": "epoch_ramp", "end": 1, "wait": 3}, time)


@pytest.mark.parametrize("first", [0.5, 1, 2, 3])
def test_mean_rate_averages_one_value_an_epoch(first: float) -> None:
    history = np.random.default_rng(0).normal(size=9)
    counts, average = np.array([first] + [1.0] * 8), 0.0
    rates = column({"kind": "mean_rate", "first": first}, epochs(9))
    for k, rate in enumerate(rates, start=1):
        average = (1 - rate) * average + rate * history[k - 1]
        assert average == pytest.approx(np.average(history[:k], weights=counts[:k]))


def test_mean_rate_known_values() -> None:
    plain_mean = column({"kind": "mean_rate"}, clock(8, 4))
    np.testing.assert_allclose(plain_mean, np.repeat([1, 1 / 2, 1 / 3, 1 / 4], 2))
    released = column({"kind": "mean_rate", "first": 2}, clock(8, 4))
    np.testing.assert_allclose(released, np.repeat([1, 1 / 3, 1 / 4, 1 / 5], 2))
    # The first value is forgotten.
    assert column({"kind": "mean_rate", "first": 0}, epochs(3)).tolist() == [1, 1, 0.5]
