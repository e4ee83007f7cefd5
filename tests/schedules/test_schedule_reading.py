"""Schedules as they are written: one form for all that mean the same, and messages."""

from __future__ import annotations

import re

import numpy as np
import pytest
from factories.schedules import clock

from cyclery.common.errors import UserError
from cyclery.schedules import amounts, check, check_batch, column, normalise, words


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
    # What a stage or `once` does not say has no key, so runs of before keep theirs.
    stages = [{"fraction": 0.5, "schedule": 1}, {"fraction": 0.5, "schedule": 2}]
    staged = normalise({"kind": "staged", "stages": stages})
    assert staged == {"kind": "staged", "stages": [s | {"schedule": normalise(s["schedule"])}
                                                   for s in stages]}  # fmt: skip
    rest = normalise({"kind": "staged", "stages": [{"updates": 9, "schedule": 1}, {"schedule": 2}]})
    assert [sorted(stage) for stage in rest["stages"]] == [["schedule", "updates"], ["schedule"]]
    once = normalise({"kind": "once", "at": 3, "value": 1})
    assert once == {"kind": "once", "at": 3, "value": 1.0, "otherwise": 0.0}
    for spec in (full, product, one_way, staged, rest, once):
        assert normalise(normalise(spec)) == normalise(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fast", "lr: must be a number, or keys and values with `kind` (found 'fast')."),
        ("1e-3", "This is text; as a number write 1.0e-03."),
        (True, "(found True)"),
        (None, "(found None)"),
        (float("nan"), "(found nan)"),
        (float("-inf"), "(found -inf)"),
        (10**400, "lr.value: must be a number at least 0.0"),
        (
            -0.1,
            "lr.value: must be a number at least 0.0, range.base or range.max (found -0.1).",
        ),
        ({"value": 1}, "lr.kind: missing; it has no default. Schedules: constant, cos"),
        ({"kind": "cosin"}, "lr.kind: unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ({"kind": 3}, "lr.kind: unknown schedule 3"),
        (
            {"kind": "cosine", "peek": 1},
            "lr: unknown key 'peek'. Did you mean 'peak'? Allowed: clock, end,",
        ),
        ({"kind": "cosine"}, "lr.peak: missing; it has no default."),
        ({"kind": "cosine", "peak": "range.min"}, "range.base or range.max (found 'range.min')."),
        (
            {"kind": "cycle", "easy": 1, "hard": 2, "factor": 0.5},
            "lr.factor: must be at least 1.0 (found 0.5).",
        ),
        (
            {"kind": "cycle", "easy": 1, "hard": 2, "order": "easy-hard-eazy"},
            "Did you mean 'easy-hard-easy'?",
        ),
        (
            {"kind": "cycle", "easy": 1, "hard": 2, "clamp": 1},
            "must be true or false (found 1).",
        ),
        ({"kind": "cycle", "easy": 1, "hard": 2, "cooldown": 0.5}, "must be a whole number"),
        ({"kind": "triangular", "low": 0, "high": 1}, "lr.cycles: give either `cycles` or `ste"),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "step_epochs": 1},
            "(found both)",
        ),
        ({"kind": "triangular", "low": 0, "high": 1, "cycles": 0}, "lr.cycles: must be "),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "gamma": 0.9},
            "lr.gamma: mode 'triangular' has no gamma",
        ),
        (
            {"kind": "triangular", "low": 0, "high": 1, "cycles": 1, "mode": "exp_range"},
            "lr.gamma: give either `gamma` or `end` (found neither).",
        ),
        ({"kind": "exponential", "start": 1}, "lr.gamma: give either `gamma` or `end`"),
        ({"kind": "decay", "high": 1, "low": 0, "over": 1.5}, "must be above 0 and at most 1 (fou"),
        ({"kind": "piecewise", "value": 1, "drops": [0.5, 2]}, "lr.drops[1]: must be at least 0"),
        ({"kind": "piecewise", "value": 1, "drops": 0.5}, "lr.drops: must be a list"),
        ({"kind": "one_cycle", "peak": 1, "warm": 1}, "lr.warm: must be above 0 and below 1"),
        ({"kind": "exp_sweep", "start": 0, "end": 1}, "lr.start: must be a number above 0"),
        ({"kind": "ramp", "end": 1, "over": 0}, "lr.over: must be above 0 and at most 1"),
        (
            {"kind": "ramp", "end": 1, "shape": "sigmoidal"},
            "must be one of linear, sigmoid (found 'sigmoidal'). Did you mean 'sigmoid'?",
        ),
        ({"kind": "ramp_down", "value": 1}, "lr.over: missing"),
        ({"kind": "epoch_ramp", "end": 1, "wait": 0.5}, "must be a whole number"),
        (
            {"kind": "epoch_ramp", "end": 1, "shape": "cycle"},
            "must be one of circle, cosine, linear, step (found 'cycle').",
        ),
        ({"kind": "mean_rate", "first": -1}, "lr.first: must be at least 0 (found -1)."),
        (
            {"kind": "cosine_arc", "peak": 1, "arc": 0.6},
            "lr.arc: must be above 0 and at most 0.5 (found 0.6).",
        ),
        ({"kind": "running_mean", "end": 1.5}, "lr.end: must be at least 0 and at most 1"),
        ({"kind": "product", "of": []}, "lr.of: must have at least one entry"),
        ({"kind": "product", "of": [1, {"kind": "cycel"}]}, "lr.of[1].kind: unknown schedule"),
        ({"kind": "reciprocal", "of": 0}, "lr.of: must be above 0 (found 0)."),
        ({"kind": "staged", "stages": [1]}, "lr.stages[0]: must be keys and values"),
        (
            {"kind": "staged", "stages": [{"fraction": 0.5, "schedule": 1}]},
            "lr.stages: the fractions must add up to 1 (found 0.5).",
        ),
        (
            {"kind": "staged", "stages": [{"fraction": 1, "schedule": {"kind": "x"}}]},
            "lr.stages[0].schedule.kind: unknown schedule 'x'",
        ),
        (
            {"kind": "staged", "stages": [{"fraction": 1, "updates": 3, "schedule": 1}]},
            "lr.stages[0]: give either `fraction` or `updates` (found both).",
        ),
        (
            {"kind": "staged", "stages": [{"schedule": 1}, {"updates": 3, "schedule": 1}]},
            "lr.stages[0]: give either `fraction` or `updates` (found neither); only the last",
        ),
        (
            {"kind": "staged", "stages": [{"fraction": 1, "schedule": 1}, {"schedule": 1}]},
            "lr.stages: the fractions must add up to less than 1",
        ),
        (
            {"kind": "staged", "stages": [{"updates": 0, "schedule": 1}]},
            "lr.stages[0].updates: must be at least 1 (found 0).",
        ),
        (
            {"kind": "repeated", "times": 0, "schedule": 1},
            "lr.times: must be at least 1 (found 0).",
        ),
        ({"kind": "repeated", "times": 2}, "lr.schedule: missing"),
        (
            {"kind": "repeated", "times": 2, "schedule": {"kind": "cosin"}},
            "lr.schedule.kind: unknown schedule 'cosin'",
        ),
        ({"kind": "once", "value": 1}, "lr.at: give either `at` or `fraction` (found neither)."),
        ({"kind": "once", "value": 1, "at": 1, "fraction": 0.5}, "lr.at: give either `at` or"),
        ({"kind": "once", "value": 1, "at": -1}, "lr.at: must be at least 0 (found -1)."),
        ({"kind": "once", "value": 1, "at": 0.5}, "lr.at: must be a whole number"),
        ({"kind": "once", "value": 1, "fraction": 1}, "lr.fraction: must be at least 0 and below"),
        ({"kind": "constant", "value": 1, "clock": "day"}, "lr.clock: must be one of epoch, up"),
    ],
)
def test_bad_schedules_say_what_is_wrong(spec: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check(spec, "lr")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kind": "cosine", "peak": 64},
            "batch.kind: must be one of constant, cycle, power_of",
        ),
        (
            {"kind": "power_of_two", "of": {"kind": "cosine", "peak": 64}},
            "batch.of.kind: must be",
        ),
        (0, "batch.value: must be a number of samples, at least 1"),
        ("range.max", "batch.value: must be a number of samples"),
    ],
)
def test_bad_batch_sizes(spec: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_batch(spec, "batch")


def test_a_schedule_has_a_bounded_number_of_parts() -> None:
    with pytest.raises(UserError, match=r"lr: must have at most 100 parts, .* \(found 102\)"):
        check({"kind": "product", "of": [1] * 101}, "lr")


def test_the_amounts_are_those_that_are_written() -> None:
    inner = {"kind": "triangular", "low": 0, "high": "range.max", "cycles": 1, "end": 0.5}
    staged = {"kind": "staged", "stages": [{"fraction": 1, "schedule": inner}]}
    assert list(amounts(2, "lr")) == [("lr", 2.0)]
    assert list(amounts({"kind": "cosine", "peak": 1}, "lr")) == [("lr.peak", 1.0)]
    assert list(amounts(staged, "lr")) == [("lr.stages[0].schedule.low", 0.0)]
    repeated = {"kind": "repeated", "times": 3, "schedule": inner}
    assert list(amounts(repeated, "lr")) == [("lr.schedule.low", 0.0)]
    assert list(amounts({"kind": "reciprocal", "of": 2}, "lr")) == []
    once = {"kind": "once", "value": 2, "otherwise": 1, "at": 0}
    assert list(amounts(once, "lr")) == [("lr.value", 2.0), ("lr.otherwise", 1.0)]
