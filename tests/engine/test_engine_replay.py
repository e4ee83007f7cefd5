"""A replayed run equals an eager one, here with the stand-in for CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.replay import Recorder

from cyclery import methods, optim
from cyclery.engine import run as run_module
from cyclery.engine.cohort import drain
from cyclery.engine.replay import WARM_UP, culprit
from cyclery.engine.run import Run
from cyclery.engine.sweep import sweep


def assert_same(one: Run, other: Run) -> None:
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert one.curve == other.curve


@pytest.mark.parametrize("method", [n for n in methods.names() if methods.load(n).capture is True])
def test_a_replayed_run_equals_an_eager_one(method: str) -> None:
    """Everything varies: a step is recorded for each size of batch, and two evaluations."""
    settings = factory.everything(method, epochs=5)
    recorder = Recorder()
    eager, replayed = factory.train(settings), factory.train(settings, recorder=recorder)
    assert_same(eager, replayed)
    sizes = len(set(replayed.table.batches))
    declared = methods.load(method)
    # Of validation and test; a head that nothing trains is not evaluated.
    parts = 2 if declared.classifies(declared.chosen({})) else 0
    assert sizes > 1 and recorder.recorded == sizes + parts
    assert recorder.replays == replayed.updates + parts * len(replayed.curve["eval_epoch"])


NETS = [
    ("small_cnn", {}), ("wrn", {}), ("stochastic_depth", {}),
    ("small_cnn", {"width": 4, "norm": "group"}), ("resnet", {"depth": 8}),
    ("plain_cnn", {"width": 0.25}), ("preresnet", {"depth": 8, "width": 4, "norm": "layer"}),
    ("vgg", {"width": 0.0625, "hidden": 1, "dropout": 0.3}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "model_settings"), NETS)
def test_every_network_replays(model: str, model_settings: dict[str, Any]) -> None:
    settings = factory.settings(
        "fixmatch", model=model, model_settings=model_settings, epochs=1, ema_decay=0.9,
        split={"labels": 40}, batch=20,
    )  # fmt: skip
    recorder = Recorder()
    assert_same(factory.train(settings), factory.train(settings, recorder=recorder))
    assert recorder.recorded == 3


@pytest.mark.parametrize("buffers", ["shared", "average", "own"])
@pytest.mark.parametrize("optimiser", optim.names())
def test_every_state_replays(optimiser: str, buffers: str) -> None:
    settings = factory.everything(
        "mean_teacher", optimiser=optimiser, lr=0.01, ema_buffers=buffers, epochs=2
    )
    assert_same(factory.train(settings), factory.train(settings, recorder=Recorder()))


def test_a_replayed_run_resumes_as_an_eager_one() -> None:
    settings = factory.everything("fixmatch", epochs=4)
    whole = factory.train(settings)
    half = factory.run(settings, recorder=Recorder())
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    rest = factory.run(settings, recorder=Recorder())
    rest.load_state(half.state(), 2, half.curve)
    factory.finish(rest)
    assert_same(rest, whole)


def test_a_replayed_sweep_equals_an_eager_one() -> None:
    settings = factory.settings(
        epochs=4, evaluations=8, lr={"kind": "linear", "start": 0.0, "end": 1.0}
    )
    eager, replayed = (
        drain(sweep(settings, factory.data(), factory.CPU, recorder=recorder))
        for recorder in (None, Recorder())
    )
    assert eager == replayed


def test_the_stand_in_sees_a_host_number_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above: what a graph would freeze gives other numbers."""
    calls = []

    def step(inner, models, batch, row, settings, generator):
        calls.append(1)
        loss, logs = inner(models, batch, row, settings, generator)
        return loss * (1 + 0.1 * len(calls)), logs

    factory.use_step(monkeypatch, step)
    eager = factory.train(factory.settings())
    calls.clear()
    replayed = factory.train(factory.settings(), recorder=Recorder())
    assert len(calls) == WARM_UP + 1
    assert not torch.equal(eager.flat.data, replayed.flat.data)


def test_warming_up_leaves_no_trace() -> None:
    run = factory.run(factory.everything("mean_teacher", batch=50))
    run.begin_epoch()
    before = run.state()
    recorded = factory.run(run.settings, recorder=Recorder())
    recorded.begin_epoch()
    assert recorded.prepare() and not run.prepare()
    for name, value in recorded.state().items():
        assert torch.equal(value, before[name]), name


def test_what_is_captured_at_once_is_all_that_is_repeated() -> None:
    """Before the first epoch, so that a run's memory is known from its start."""
    settings = factory.everything("fixmatch", epochs=3)
    recorder = Recorder()
    run = factory.run(settings, recorder=recorder)
    assert run.prepare()
    count = recorder.recorded
    factory.finish(run)
    assert recorder.recorded == count
    assert_same(run, factory.train(settings))


# What cannot be captured.


class Refuses:
    """A recorder whose capture fails as CUDA's does: ending it raises an error of its own."""

    def __init__(self, error: type[RuntimeError] = RuntimeError) -> None:
        self.refused: set[str] = set()
        self.tries, self._error = 0, error

    def __call__(self, function: Any, generators: Any) -> Any:
        self.tries += 1
        with self._capture():
            function()
            raise self._error("operation not permitted when stream is capturing\nmore")

    @contextmanager
    def _capture(self) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


def test_a_step_that_cannot_be_captured_runs_eager_with_one_warning(caplog) -> None:
    settings, recorder = factory.settings(epochs=2), Refuses()
    with caplog.at_level(logging.WARNING):
        runs = [factory.train(settings, recorder=recorder) for _ in range(2)]
    for run in runs:
        assert_same(run, factory.train(settings))
    (warning,) = caplog.messages
    assert recorder.tries == 1
    assert "supervised cannot be captured at `raise self._error" in warning
    assert "not permitted" in warning and "\n" not in warning


def test_a_later_capture_that_fails_leaves_the_earlier_one_in_use() -> None:
    class Second(Recorder):
        def __call__(self, function: Any, generators: Any) -> Any:
            if self.recorded == 1:
                raise RuntimeError("no")
            return super().__call__(function, generators)

    recorder = Second()
    run = factory.run(factory.settings(epochs=2), recorder=recorder)
    assert not run.prepare()
    factory.finish(run)
    assert recorder.replays == run.updates
    assert_same(run, factory.train(run.settings))


def test_running_out_of_memory_is_no_refusal() -> None:
    recorder = Refuses(torch.OutOfMemoryError)
    with pytest.raises(torch.OutOfMemoryError):
        factory.train(factory.settings(), recorder=recorder)
    assert not recorder.refused


def test_a_method_may_decline_to_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    declared = replace(methods.load("supervised"), capture=False)
    monkeypatch.setattr(run_module.methods, "load", lambda name: declared)
    recorder = Recorder()
    factory.train(factory.settings(), recorder=recorder)
    assert recorder.recorded == 0


def test_the_culprit_is_the_line_outside_of_torch() -> None:
    try:
        torch.zeros(2) @ torch.zeros(3)
    except RuntimeError as error:
        assert culprit(error) == "`torch.zeros(2) @ torch.zeros(3)`"
