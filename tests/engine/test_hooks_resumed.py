"""A run that uses every hook: exact under resume and capture; and what hooks must not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.moments import Json, acting, assert_same, resumed
from factories.replay import Recorder
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment
from cyclery.methods import Stream

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def anew(models: dict[str, nn.Module], moment: Moment, parts: Any = ("",)) -> None:
    """Draw the whole network again, with an optimiser and an average that are new."""
    fresh = moment.drawn_again()["main"]
    with torch.no_grad():
        for own, other in zip(models["main"].parameters(), fresh.parameters(), strict=True):
            own.copy_(other)
        for own, other in zip(models["main"].buffers(), fresh.buffers(), strict=True):
            own.copy_(other)
    moment.forget(parts)
    moment.restart_average()


# Resume and capture.

POOL: Json = {"unlabelled": "all"}


def relabelled(models: dict[str, nn.Module], moment: Moment) -> None:
    """Take the samples that the network is surest of, and forget all but half of the state."""
    ids = moment.pool("unlabelled")
    sure = moment.outputs(models["main"], ids).softmax(1).amax(1)
    moment.fill("mine", ids[sure.argsort(descending=True)[: 30 + moment.update]])
    with torch.no_grad():
        frozen = models["still"].weight
        frozen.copy_(torch.rand(frozen.shape, generator=moment.generator("still")))
        models["memory"].seen.add_(moment.update)
    anew(models, moment, ("main.head",))


class Memory(nn.Module):
    """Holds a buffer that events write."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))


def everything(monkeypatch: pytest.MonkeyPatch) -> Json:
    """Return settings of a method that does at its events all that a hook may do."""
    step = factory.methods.load("supervised").step

    def modules(settings: Any, made: Any) -> dict[str, nn.Module]:
        return {"still": nn.Linear(10, 10).requires_grad_(False), "memory": Memory()}

    def stepping(models: Any, batch: Any, row: Any, settings: Any, generator: Any) -> Any:
        loss, logs = step(models, batch, row, settings, generator)
        more = models["still"](models["main"](batch["mine"].x)).square().mean()
        return loss + 0.01 * more * (1 + models["memory"].seen.sum()), logs

    acting(
        monkeypatch, relabelled, 0, 4, 6, 8, 13,
        step=stepping,
        modules=modules,
        begin=lambda models, moment, settings: moment.fill("mine", moment.ids[:7]),
        streams=lambda settings: {"labelled": Stream(("weak",)),
                                  "mine": Stream(("weak",), pool="own", times=2)},
    )  # fmt: skip
    return factory.settings(
        epochs=4, optimiser="adam", lr=0.01, ema_decay=0.9, split=POOL, evaluations=4
    )


def test_a_run_that_uses_every_hook_resumes_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = everything(monkeypatch)
    whole = factory.train(settings)
    assert_same(resumed(settings), whole)
    assert whole.models["memory"].seen.tolist() == [31.0, 31.0]  # type: ignore[union-attr]
    assert len(whole.feeds["mine"].ids) == 43


def test_captured_steps_see_what_events_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = everything(monkeypatch)
    eager = factory.train(settings)
    recorder = Recorder()
    captured = factory.run(settings, recorder=recorder)
    captured.prepare()
    factory.finish(captured)
    assert recorder.replays >= captured.updates
    assert_same(captured, eager)
    assert_same(resumed(settings, recorder=Recorder), eager)


def test_a_pool_that_is_filled_at_an_event_counts_from_the_next_epoch_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = everything(monkeypatch)
    run = factory.run(settings)
    seen: list[set[int]] = []
    make = run._batch

    def keep(size: int, magnitude: Tensor | None) -> Any:
        batch = make(size, magnitude)
        seen.append(set(batch["mine"].ids.tolist()))
        return batch

    run._batch = keep  # type: ignore[method-assign]
    run.train_epoch()
    # The event before the first update comes before the order of the epoch is drawn.
    first = set(run.feeds["mine"].ids.tolist())
    assert len(first) == 30 and set().union(*seen) == first
    seen.clear()
    run.train_epoch()
    at_four, at_six = set().union(*seen), set(run.feeds["mine"].ids.tolist())
    assert len(at_four) == 34 and len(at_six) == 36 and at_four != at_six


def test_outputs_and_accuracy_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm in training mode would move its statistics, in a function as in a network."""

    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        main: Any = models["main"]
        logits = moment.outputs(main, moment.ids)
        features = moment.outputs(lambda x: main.features(x), moment.ids)
        assert torch.allclose(main.head(features), logits, atol=1e-6)
        right = (logits.argmax(1) == moment.y).double().mean()
        assert moment.accuracy("train") == pytest.approx(float(right))
        assert 0 <= moment.accuracy() <= 1 and main.training

    settings = factory.settings(epochs=2)
    plain = factory.train(settings)
    acting(monkeypatch, act, *range(8))
    assert_same(factory.train(settings), plain)


# What hooks must not do.


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda moment: moment.accuracy("test"), "must not choose by the test set"),
        (lambda moment: moment.accuracy("unlabelled"), "of validation or train, whose labels"),
        (lambda moment: moment.pool("test"), "must not see the test set"),
        (lambda moment: moment.pool("tset"), "no samples 'tset'; there are .*train"),
        (lambda moment: moment.fill("yours", moment.ids), "unknown stream 'yours'"),
        (
            lambda moment: moment.fill("labelled", moment.ids),
            "streams: labelled: .* which only `own` a",
        ),
        (lambda moment: moment.fill("mine", moment.ids[:0]), "fills its pool with no sample"),
        (
            lambda moment: moment.fill("mine", moment._run.ids["test"][:1]),
            "streams: mine: the method fills its pool with samples of the part test",
        ),
        (lambda moment: moment.fill("mine", moment.pool("validation")), "of the part validation"),
    ],
)
def test_what_a_hook_must_not_do_is_one_message(
    act: Callable[[Moment], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = everything(monkeypatch)
    acting(
        monkeypatch,
        lambda models, moment: act(moment),
        0,
        streams=lambda settings: {"labelled": Stream(("weak",)),
                                  "mine": Stream(("weak",), pool="own")},
    )  # fmt: skip
    with pytest.raises(UserError, match=said):
        factory.train(settings)


def test_validation_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    acting(monkeypatch, lambda models, moment: moment.accuracy(), 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(UserError, match=r"split.validation: must be above 0, for the method meas"):
        factory.train(factory.settings(split={"validation": 0}))
