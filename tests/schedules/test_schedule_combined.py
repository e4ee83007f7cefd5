"""Schedules of schedules, and what is true of any."""

from __future__ import annotations

import numpy as np
import pytest
from factories.schedules import clock, epochs, optimiser, torch_rates
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, clock_for, column, epoch_batches
from cyclery.schedules.epoch_ramp import CLIMBS
from cyclery.schedules.triangular import WINDOWS


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


def test_stages_may_be_counted_in_updates() -> None:
    inner = {"kind": "linear", "start": 0, "end": 1}

    def staged(*stages: dict[str, object], updates: int = 20) -> list[float]:
        given = [{"schedule": inner} | stage for stage in stages]
        return column({"kind": "staged", "stages": given}, clock(updates)).tolist()

    lines = [t / 5 for t in range(5)] + [t / 15 for t in range(15)]
    assert staged({"updates": 5}, {"updates": 15}) == lines
    assert staged({"updates": 5}, {}) == staged({"updates": 5}, {"fraction": 0.75}) == lines
    assert staged({"fraction": 0.25}, {}) == staged({"fraction": 0.25}, {"updates": 15}) == lines
    # The fixed part stays as long in a longer run; a fraction is one of the whole run.
    assert staged({"updates": 5}, {}, updates=40)[:5] == lines[:5]
    assert staged({"updates": 2}, {"fraction": 0.5}, {}) == [
        *(t / 2 for t in range(2)), *(t / 10 for t in range(10)), *(t / 8 for t in range(8)),
    ]  # fmt: skip
    for stages, said in (
        ([{"updates": 5}, {"updates": 14}], "must have 20 updates in all, as many as there are"),
        ([{"updates": 5}, {"fraction": 0.8}], "must have 20 updates in all"),
        ([{"updates": 20}, {}], "the last stage takes the rest of the 20 updates, but those bef"),
    ):
        with pytest.raises(UserError, match=f"^stages: {said}"):
            staged(*stages)


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_a_repeated_cosine_is_torchs_warm_restarts(times: int) -> None:
    length = 12
    spec = {"kind": "repeated", "times": times, "schedule": {"kind": "cosine", "peak": 0.3}}
    found = column(spec, clock(times * length, times))
    scheduler = CosineAnnealingWarmRestarts(optimiser(0.3), T_0=length)
    np.testing.assert_allclose(found, torch_rates(scheduler, times * length), atol=1e-15)
    # And that rebuilt for every stage.
    rebuilt = torch_rates(CosineAnnealingLR(optimiser(0.3), T_max=length), length)
    np.testing.assert_allclose(found, np.tile(rebuilt, times), atol=1e-15)


def test_repeats_are_as_long_as_one_another_and_are_those_of_stages() -> None:
    inner = {"kind": "linear", "start": 0, "end": 1}
    spec = {"kind": "repeated", "times": 3, "schedule": inner}
    stages = [{"fraction": 1 / 3, "schedule": inner}] * 3
    for updates in (9, 10, 11):
        np.testing.assert_array_equal(
            column(spec, clock(updates)), column({"kind": "staged", "stages": stages},
                                                 clock(updates)))  # fmt: skip
    with pytest.raises(UserError, match=r"^times: must be at most the 2 updates .* \(found 3\)"):
        column(spec, clock(2))
    long = {**spec, "schedule": {"kind": "cosine", "peak": 1, "warmup_epochs": 9}}
    with pytest.raises(UserError, match=r"^schedule\.warmup_epochs: 9 of 1 epochs leave none"):
        column(long, clock(9, 3))


@pytest.mark.parametrize("at", [0, 3, 7])
def test_one_value_for_one_update(at: int) -> None:
    expected = np.full(8, 0.5)
    expected[at] = 2
    spec = {"kind": "once", "value": 2, "otherwise": 0.5}
    for place in ({"at": at}, {"fraction": at / 8}):
        np.testing.assert_array_equal(column(spec | place, clock(8, 2)), expected)
    assert column({"kind": "once", "value": 1, "at": at}, clock(8)).sum() == 1
    # The last update is what a fraction near 1 comes to.
    assert column(spec | {"fraction": 0.99}, clock(8)).argmax() == 7
    held = column(spec | {"at": at, "clock": "epoch"}, clock(8, 2))
    assert held.tolist() == ([2] * 4 + [0.5] * 4 if at == 0 else [0.5] * 8)


def test_an_update_that_a_run_does_not_have() -> None:
    spec = {"kind": "once", "value": 1, "at": 8}
    with pytest.raises(UserError, match=r"^at: must be below 8, .* \(found 8\)"):
        column(spec, clock(8))
    stages = [{"updates": 2, "schedule": 1}, {"schedule": spec}]
    with pytest.raises(UserError, match=r"^stages\[1\]\.schedule\.at: must be below 6, "):
        column({"kind": "staged", "stages": stages}, clock(8))


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
