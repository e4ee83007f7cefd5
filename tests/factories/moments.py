"""Hooks of a method at updates, for tests: what does something there, and runs taken up anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cyclery.engine.hooks import Moment
from cyclery.engine.run import Run
from factories import engine as factory

Json = dict[str, Any]
Act = Callable[[dict[str, nn.Module], Moment], None]


def events_at(*updates: int) -> Callable[..., Any]:
    return lambda settings, clock: updates


def acting(monkeypatch: pytest.MonkeyPatch, act: Act, *updates: int, **hooks: Any) -> None:
    """Let the supervised method do something before updates."""
    factory.use_method(
        monkeypatch,
        events=events_at(*updates),
        event=lambda models, moment, settings: act(models, moment),
        **hooks,
    )


def resumed(settings: Json, every: int = 1, recorder: Callable[[], Any] = lambda: None) -> Run:
    """Return a finished run that was taken up anew after every epoch."""
    run = factory.run(settings, recorder=recorder())
    while not run.finished:
        run.prepare()
        for _ in range(every):
            run.train_epoch()
            run.evaluate_on_the_way()
        state, curve = run.state(), {k: [*v] for k, v in run.curve.items()}
        other = factory.run(settings, recorder=recorder())
        other.load_state(state, run.epoch, curve)
        run = other
    return run


def assert_same(one: Run, other: Run) -> None:
    state, expected = one.state(), other.state()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    assert one.curve == other.curve
    assert one.final() == other.final()
