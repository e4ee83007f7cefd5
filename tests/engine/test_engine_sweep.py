"""The learning-rate range test on the real digits."""

from __future__ import annotations

import json

import pytest
from factories import engine as factory

from cyclery.engine.cohort import drain
from cyclery.engine.sweep import sweep


def sweep_settings(kind, start, end, **changes):
    spec = {"kind": kind, "start": start, "end": end}
    return factory.settings(
        **{"epochs": 10, "evaluations": 40, "lr": spec, "augment": (), **changes}
    )


def swept(settings, *options):
    return drain(sweep(settings, factory.data(), factory.CPU, *options))


def sweep_of(*given, **changes):
    return swept(sweep_settings(*given, **changes))


@pytest.mark.parametrize(
    ("kind", "start", "end"), [("linear", 0.0, 20.0), ("exp_sweep", 1e-4, 100.0)]
)
def test_bounds_on_the_digits_are_sensible(kind, start, end):
    found = sweep_of(kind, start, end, split={"labels": 400})
    assert len(found["lr"]) == len(found["accuracy"]) == len(found["loss"]) == 40
    assert found["lr"] == sorted(found["lr"])
    base, top = found["bounds"]["base"], found["bounds"]["max"]
    assert start <= base < top <= end
    assert top / base > 3
    # It learnt inside the bounds, and not before them.
    best = max(found["accuracy"])
    assert best > 0.6
    inside = [a for lr, a in zip(found["lr"], found["accuracy"], strict=True) if base <= lr <= top]
    assert max(inside) == best
    assert found["accuracy"][0] < best
    assert found["updates"] == 80
    assert found["images"] == 4000
    assert set(found["readings"]) >= {"steepest", "valley", "minimum_10"}
    json.dumps(found, allow_nan=False)


def test_a_sweep_that_diverges_ends_early_and_is_read_until_there():
    found = sweep_of("exp_sweep", 1e-3, 1e30)
    assert 0 < len(found["lr"]) < 40
    assert found["updates"] < 40
    assert found["images"] == 50 * found["updates"]
    assert found["bounds"]["base"] < found["bounds"]["max"] <= 1e30
    assert found["bounds"]["max"] >= found["lr"][0]
    json.dumps(found, allow_nan=False)


def test_a_sweep_that_diverges_at_once_is_no_crash():
    found = sweep_of("exp_sweep", 1e30, 1e35)
    assert found["lr"] == []
    json.dumps(found, allow_nan=False)


def test_a_sweep_repeats_bit_for_bit_and_follows_its_seed():
    settings = sweep_settings("linear", 0.0, 2.0, epochs=3, evaluations=10)
    one, two = (swept(settings) for _ in range(2))
    assert one == two
    other = swept({**settings, "seed": 1})
    assert other["accuracy"] != one["accuracy"]


def test_what_pause_raises_ends_the_sweep():
    calls = []

    def pause():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    settings = sweep_settings("linear", 0.0, 1.0, epochs=2, evaluations=8)
    with pytest.raises(KeyboardInterrupt):
        swept(settings, pause)
    assert len(calls) == 3
