"""Schedules against the papers' known values, torch's schedulers and their own invariants."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from cyclery.schedules.columns import CLIMBS, FORMULAS, WINDOWS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LambdaLR, LRScheduler, OneCycleLR

from cyclery.common.errors import UserError
from cyclery.schedules import (
    KINDS,
    Clock,
    check,
    check_batch,
    clock_for,
    column,
    epoch_batches,
    eta,
    is_constant,
    normalise,
    words,
)


def clock(updates: int, epochs: int = 1) -> Clock:
    """Return a clock of equal epochs."""
    return Clock(np.repeat(np.arange(epochs), updates // epochs), epochs)


def epochs(count: int) -> Clock:
    """Return a clock of one update per epoch."""
    return clock(count, count)


def optimiser(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def torch_rates(scheduler: LRScheduler, updates: int, key: str = "lr") -> np.ndarray:
    """Return what torch's scheduler sets before each update."""
    rates = []
    for t in range(updates):
        rates.append(float(scheduler.optimizer.param_groups[0][key]))
        scheduler.optimizer.step()
        if t < updates - 1:
            scheduler.step()
    return np.array(rates)


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


def test_stages_restart_the_clock() -> None:
    # CLR-1's stages at a tenth of their length: tenfold lower bounds, shorter cycles.
    def stage(scale: float, updates: int, step: int) -> dict[str, object]:
        schedule = {"kind": "triangular", "low": 1e-3 * scale, "high": 5e-3 * scale}
        return {
            "fraction": updates / 2500,
            "schedule": schedule | {"mode": "triangular2", "cycles": updates / (2 * step)},
        }

    stages = [stage(1, 1600, 200), stage(0.1, 600, 100), stage(0.01, 300, 50)]
    values = column({"kind": "staged", "stages": stages}, clock(2500, 50))
    np.testing.assert_allclose(values[[0, 1600, 2200]], [1e-3, 1e-4, 1e-5])
    np.testing.assert_allclose(values[[200, 1700, 2250]], [5e-3, 5e-4, 5e-5])
    np.testing.assert_allclose(values[600], 3e-3)
    # Half a cycle in epochs means epochs of the run, whatever part of one a stage cuts off.
    inner = {"kind": "triangular", "low": 0, "high": 1, "step_epochs": 1}
    stages = [{"fraction": 0.25, "schedule": 0}, {"fraction": 0.75, "schedule": inner}]
    values = column({"kind": "staged", "stages": stages}, clock(40, 2))
    np.testing.assert_allclose(values[10:], column(inner, clock(40, 2))[:30])


def test_combinations() -> None:
    cycle = {"kind": "cycle", "easy": 0.5, "hard": 2.0}
    lr = {"kind": "cosine", "peak": 0.1}
    both = {"kind": "product", "of": [lr, {"kind": "reciprocal", "of": cycle}, 2]}
    np.testing.assert_allclose(
        column(both, epochs(9)), 2 * column(lr, epochs(9)) / column(cycle, epochs(9))
    )
    with pytest.raises(UserError, match="reaches 0; it must stay above 0"):
        column({"kind": "reciprocal", "of": {"kind": "cycle", "easy": 0, "hard": 1}}, epochs(3))
    # The nearest power on a log scale: 45 is nearer to 32, 46 to 64.
    for size, power in ((32, 32), (45, 32), (46, 64), (100, 128)):
        assert column({"kind": "power_of_two", "of": size}, clock(1)).tolist() == [power]


def test_batch_sizes_come_before_the_clock() -> None:
    spec = {"kind": "power_of_two", "of": {"kind": "cycle", "easy": 256, "hard": 32}}
    batches = epoch_batches(spec, 5)
    assert batches.tolist() == [256, 128, 32, 128, 256]
    assert batches.dtype == np.int64
    assert epoch_batches(64, 3).tolist() == [64] * 3
    time, steps = clock_for(batches, 1000)
    assert steps.tolist() == [3, 7, 31, 7, 3]
    assert time.updates == 51
    assert np.bincount(time.epoch).tolist() == steps.tolist()
    with pytest.raises(UserError, match="batch: 256 is more than the 200 training samples"):
        clock_for(batches, 200)
    with pytest.raises(UserError, match="epochs: 0 is not allowed"):
        clock_for(epoch_batches(64, 0), 200)


def test_range_words_take_the_bounds() -> None:
    spec = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 1}
    values = column(spec, clock(4), bounds=(0.1, 0.3))
    np.testing.assert_allclose(values, [0.1, 0.2, 0.3, 0.2])
    assert column("range.max", clock(1), bounds=(0.1, 0.3)).tolist() == [0.3]
    assert words(spec) and words({"kind": "product", "of": [1, spec]}) and words("range.base")
    assert not words(0.1) and not words({"kind": "constant", "value": 1})
    with pytest.raises(UserError, match=r"range\.base and range\.max need a range test"):
        column(spec, clock(4))


def test_equal_settings_normalise_equally() -> None:
    assert normalise(1) == {"kind": "constant", "value": 1.0}
    assert normalise(1) == normalise({"kind": "constant", "value": 1.0, "clock": "epoch"})
    full = normalise({"kind": "cycle", "easy": 1, "hard": 2})
    assert full == normalise({"kind": "cycle", "hard": 2.0, "easy": 1, "factor": 2})
    assert normalise(full) == full
    one_way = {"kind": "cycle", "easy": 1, "hard": 2, "order": "easy-hard"}
    assert normalise(one_way) == normalise(one_way | {"factor": 4})
    product = normalise({"kind": "product", "of": [1, {"kind": "constant", "value": 2}]})
    assert product["of"] == [normalise(1), normalise(2)]
    assert normalise({"kind": "linear", "start": 0, "end": 1, "clock": "epoch"})["clock"] == "epoch"
    for by_epoch in ({"kind": "mean_rate"}, {"kind": "epoch_ramp", "end": 1}):
        assert normalise(by_epoch) == normalise(by_epoch | {"clock": "epoch"})
    for spec in (full, product, one_way):
        assert normalise(normalise(spec)) == normalise(spec)


def test_is_constant() -> None:
    cycle = {"kind": "cycle", "easy": 1, "hard": 2}
    triangle = {"kind": "triangular", "low": 1, "high": 1, "cycles": 1}
    assert is_constant(0.1)
    assert is_constant(cycle | {"hard": 1})
    assert is_constant(triangle)
    assert is_constant({"kind": "product", "of": [1, {"kind": "reciprocal", "of": 2}]})
    assert not is_constant(cycle)
    assert not is_constant({"kind": "power_of_two", "of": cycle})
    assert not is_constant(triangle | {"mode": "exp_range_bounds", "gamma": 0.9})
    assert not is_constant({"kind": "cosine", "peak": 0.1})
    assert is_constant({"kind": "ramp", "start": 1, "end": 1, "shape": "sigmoid"})
    assert not is_constant({"kind": "ramp", "end": 1})
    assert is_constant({"kind": "epoch_ramp", "start": 1, "end": 1, "shape": "step"})
    assert not is_constant({"kind": "epoch_ramp", "end": 1, "shape": "step"})
    assert not is_constant({"kind": "mean_rate"})
    assert not is_constant({"kind": "ramp_down", "value": 1, "over": 0.5})
    assert not is_constant({"kind": "cosine_arc", "peak": 1})
    assert not is_constant({"kind": "running_mean", "end": 0.9})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fast", "lr: 'fast' is not allowed; allowed: a number, or {kind: ...}"),
        ("1e-3", "This is text; as a number write 1.0e-03."),
        (True, "lr: True is not allowed"),
        (None, "lr: None is not allowed"),
        (float("nan"), "lr: nan is not allowed"),
        (-0.1, "lr.value: -0.1 is not allowed; allowed: a number >= 0, or range.base or range.max"),
        ({"value": 1}, "lr: a schedule needs a `kind`: constant, cos"),
        ({"kind": "cosin"}, "lr.kind: unknown kind 'cosin'. Did you mean 'cosine'?"),
        ({"kind": 3}, "lr.kind: unknown kind 3"),
        (
            {"kind": "cosine", "peek": 1},
            "lr.peek: unknown key 'peek' of kind 'cosine'. Did you mean 'peak'?",
        ),
        ({"kind": "cosine"}, "lr.peak: missing; a schedule of kind 'cosine' needs it"),
        ({"kind": "cosine", "peak": "range.min"}, "lr.peak: 'range.min' is not allowed"),
        (
            {"kind": "cycle", "easy": 1, "hard": 2, "factor": 0.5},
            "lr.factor: 0.5 is not allowed; allowed: a number >= 1.",
        ),
        (
            {"kind": "cycle", "easy": 1, "hard": 2, "order": "easy-hard-eazy"},
            "Did you mean 'easy-hard-easy'?",
        ),
        ({"kind": "cycle", "easy": 1, "hard": 2, "clamp": 1}, "lr.clamp: 1 is not allowed"),
        ({"kind": "cycle", "easy": 1, "hard": 2, "cooldown": 0.5}, "allowed: a whole number >= 0"),
        ({"kind": "triangular", "low": 0, "high": 1}, "lr: give either `cycles` or `step_epochs`"),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "step_epochs": 1},
            "(found both)",
        ),
        ({"kind": "triangular", "low": 0, "high": 1, "cycles": 0}, "lr.cycles: 0 is not allowed"),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "gamma": 0.9},
            "lr.gamma: mode 'triangular' has no gamma",
        ),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "mode": "exp_range"},
            "lr: give either `gamma` or `end` (found neither)",
        ),
        ({"kind": "exponential", "start": 1}, "lr: give either `gamma` or `end`"),
        ({"kind": "decay", "high": 1, "low": 0, "over": 1.5}, "allowed: a number > 0 and <= 1"),
        ({"kind": "piecewise", "value": 1, "drops": [0.5, 2]}, "lr.drops[1]: 2 is not allowed"),
        ({"kind": "piecewise", "value": 1, "drops": 0.5}, "lr.drops: 0.5 is not allowed"),
        ({"kind": "one_cycle", "peak": 1, "warm": 1}, "lr.warm: 1 is not allowed"),
        ({"kind": "exp_sweep", "start": 0, "end": 1}, "lr.start: 0 is not allowed"),
        ({"kind": "ramp", "end": 1, "over": 0}, "allowed: a number > 0 and <= 1"),
        (
            {"kind": "ramp", "end": 1, "shape": "sigmoidal"},
            "allowed: linear, sigmoid. Did you mean 'sigmoid'?",
        ),
        ({"kind": "ramp_down", "value": 1}, "lr.over: missing"),
        ({"kind": "epoch_ramp", "end": 1, "wait": 0.5}, "allowed: a whole number >= 0"),
        (
            {"kind": "epoch_ramp", "end": 1, "shape": "cycle"},
            "allowed: linear, cosine, circle, step.",
        ),
        ({"kind": "mean_rate", "first": -1}, "lr.first: -1 is not allowed"),
        (
            {"kind": "cosine_arc", "peak": 1, "arc": 0.6},
            "lr.arc: 0.6 is not allowed; allowed: a number > 0 and <= 0.5",
        ),
        ({"kind": "running_mean", "end": 1.5}, "allowed: a number >= 0 and <= 1"),
        ({"kind": "product", "of": []}, "lr.of: [] is not allowed; allowed: a list"),
        ({"kind": "product", "of": [1, {"kind": "cycel"}]}, "lr.of[1].kind: unknown kind 'cycel'"),
        ({"kind": "reciprocal", "of": 0}, "lr.of: 0 is not allowed"),
        ({"kind": "staged", "stages": [1]}, "lr.stages[0]: 1 is not allowed"),
        (
            {"kind": "staged", "stages": [{"fraction": 0.5, "schedule": 1}]},
            "lr.stages: the fractions add up to 0.5, not 1",
        ),
        (
            {"kind": "staged", "stages": [{"fraction": 1, "schedule": {"kind": "x"}}]},
            "lr.stages[0].schedule.kind: unknown kind 'x'",
        ),
        ({"kind": "constant", "value": 1, "clock": "day"}, "lr.clock: 'day' is not allowed"),
    ],
)
def test_bad_schedules_say_what_is_wrong(spec: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check(spec, "lr")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "cosine", "peak": 64}, "batch.kind: 'cosine' cannot be a batch size"),
        ({"kind": "power_of_two", "of": {"kind": "cosine", "peak": 64}}, "batch.of.kind: 'cosine'"),
        (0, "batch.value: 0.0 is not allowed; allowed: a number of samples, at least 1"),
        ("range.max", "batch.value: 'range.max' is not allowed"),
    ],
)
def test_bad_batch_sizes(spec: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_batch(spec, "batch")


def test_every_kind_is_documented_and_computed() -> None:
    assert set(KINDS) == set(FORMULAS)
    for kind in KINDS.values():
        assert kind.__doc__
        assert all(item.metadata["doc"] for item in fields(kind))


values_ = st.floats(0, 10)
plain = st.one_of(
    st.builds(
        lambda easy, hard, factor, order: {
            "kind": "cycle", "easy": easy, "hard": hard, "factor": factor, "order": order
        },
        values_, values_, st.floats(1, 8),
        st.sampled_from(
            ["easy-hard-easy", "hard-easy-hard", "easy-hard", "hard-easy", "shuffled"]
        ),
    ),
    st.builds(
        lambda low, high, cycles, window, mode: {
            "kind": "triangular", "low": low, "high": high, "cycles": cycles, "window": window,
            "mode": mode,
        } | ({"gamma": 0.99} if mode == "exp_range" else {}),
        values_, values_, st.floats(0.5, 6), st.sampled_from(list(WINDOWS)),
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
    ),
    st.builds(
        lambda peak, end: {"kind": "cosine", "peak": peak, "end": end}, values_, values_
    ),
    st.builds(
        lambda high, low, over: {"kind": "decay", "high": high, "low": low, "over": over},
        values_, values_, st.floats(0.01, 1),
    ),
    st.builds(lambda start, end: {"kind": "linear", "start": start, "end": end}, values_, values_),
    st.builds(
        lambda start, end, shape: {
            "kind": "epoch_ramp", "start": start, "end": end, "shape": shape
        },
        values_, values_, st.sampled_from(list(CLIMBS)),
    ),
    st.builds(
        lambda start, end, over, shape: {
            "kind": "ramp", "start": start, "end": end, "over": over, "shape": shape
        },
        values_, values_, st.floats(0.01, 1), st.sampled_from(["linear", "sigmoid"]),
    ),
)  # fmt: skip
clocks = st.builds(
    lambda batches, n: clock_for(np.array(batches), n)[0],
    st.lists(st.integers(1, 20), min_size=1, max_size=12),
    st.integers(20, 60),
)
ENDS = {"easy", "hard", "low", "high", "peak", "end", "start"}


@settings(max_examples=150, deadline=None)
@given(plain, clocks, st.integers(0, 9))
def test_values_stay_between_the_two_ends(spec: dict[str, float], time: Clock, seed: int) -> None:
    values = column(spec, time, seed)
    assert values.shape == (time.updates,) and values.dtype == np.float64
    ends = [spec[name] for name in ENDS & set(spec)]
    assert (values >= min(ends) - 1e-9).all() and (values <= max(ends) + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(plain, clocks, st.integers(0, 9))
def test_epoch_clock_holds_the_first_value(spec: dict[str, object], time: Clock, seed: int) -> None:
    held = column(spec | {"clock": "epoch"}, time, seed)
    free = column(spec, time, seed)
    first = np.flatnonzero(np.diff(time.epoch, prepend=-1))
    assert (held[first] == free[first]).all()
    assert (held == held[first][time.epoch]).all()
    if spec["kind"] in ("cycle", "epoch_ramp"):
        assert (held == free).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.floats(1, 6), st.integers(0, 99))
def test_shuffled_is_a_permutation_of_the_cycle(count: int, factor: float, seed: int) -> None:
    spec = {"kind": "cycle", "easy": 1, "hard": 3, "factor": factor}
    plain_values = column(spec, epochs(count), seed)
    shuffled = column(spec | {"order": "shuffled"}, epochs(count), seed)
    assert sorted(shuffled) == sorted(plain_values)
    assert (shuffled == column(spec | {"order": "shuffled"}, epochs(count), seed)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 10))
def test_whole_cycles_return_to_the_low_end(step: int, cycles: int) -> None:
    spec = {"kind": "triangular", "low": 1, "high": 2, "cycles": cycles}
    values = column(spec, clock(2 * step * cycles))
    np.testing.assert_allclose(values[:: 2 * step], 1, atol=1e-12)
    np.testing.assert_allclose(values[step :: 2 * step], 2, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 4096), st.integers(2, 9))
def test_powers_of_two(size: float, count: int) -> None:
    batches = epoch_batches(
        {"kind": "power_of_two", "of": {"kind": "cycle", "easy": size, "hard": 1}}, count
    )
    assert all(b & (b - 1) == 0 for b in batches.tolist())


def test_kinds_validate_through_pydantic() -> None:
    adapter = TypeAdapter(KINDS["triangular"])
    assert adapter.validate_python({"low": "range.base", "high": 1, "cycles": 2}).cycles == 2
    with pytest.raises(ValidationError):
        adapter.validate_python({"low": 0, "high": 1, "cycle": 2})
    assert all(TypeAdapter(kind).json_schema()["properties"] for kind in KINDS.values())
