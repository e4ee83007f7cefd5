"""Hooks between updates: when they are called, what they draw and change, exactly under resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.replay import Recorder
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment
from cyclery.engine.run import Run
from cyclery.methods import Stream

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

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


# When.


def test_events_come_before_their_updates_and_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 4 updates: in the middle of one, at its start, at the very first and the last."""
    told: list[str] = []
    step = factory.methods.load("supervised").step

    def stepping(models: Any, batch: Any, *rest: Any) -> Any:
        told.append("step")
        return step(models, batch, *rest)

    acting(
        monkeypatch,
        lambda models, moment: told.append(f"event {moment.update} in {moment.epoch}"),
        0, 4, 6, 11,
        step=stepping,
    )  # fmt: skip
    run = factory.train(factory.settings(epochs=3))
    assert run.updates == 12
    expected = ["step"] * 12
    for update, epoch in ((11, 2), (6, 1), (4, 1), (0, 0)):
        expected.insert(update, f"event {update} in {epoch}")
    assert told == expected


def test_after_a_resume_an_event_is_neither_left_out_nor_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    acting(monkeypatch, lambda models, moment: told.append(moment.update), 0, 4, 6, 8, 11)
    resumed(factory.settings(epochs=3))
    assert told == [0, 4, 6, 8, 11]


def test_the_clock_has_the_first_update_of_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    factory.use_method(
        monkeypatch,
        events=lambda settings, clock: clock.starts,
        event=lambda models, moment, settings: told.append(moment.update),
    )
    run = factory.train(factory.settings(epochs=3, batch=factory.cycle(25, 50)))
    firsts = [int(run.table.steps[:epoch].sum()) for epoch in range(3)]
    assert told == firsts and len(set(run.table.steps.tolist())) > 1


# Draws.


def test_draws_differ_by_moment_and_purpose_and_are_the_same_after_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: dict[tuple[int, str], Tensor] = {}

    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        for purpose in ("one", "other"):
            drawn = torch.rand(4, generator=moment.generator(purpose))
            known = found.setdefault((moment.update, purpose), drawn)
            assert torch.equal(drawn, known)

    acting(monkeypatch, act, 0, 4, 6, 8)
    settings = factory.settings(epochs=3)
    factory.train(settings)
    assert len(found) == len({tuple(each.tolist()) for each in found.values()}) == 8
    resumed(settings)
    assert len(found) == 8
    before = dict(found)
    found.clear()
    factory.train({**settings, "seed": 1})
    assert not any(torch.equal(found[key], before[key]) for key in found)


def test_a_draw_from_a_global_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    acting(monkeypatch, lambda models, moment: torch.rand(1) and None, 4)
    with pytest.raises(
        UserError, match=r"'supervised' draws from torch's global .* in its `event`"
    ):
        factory.train(factory.settings(epochs=2))


def test_drawn_again_at_the_beginning_has_the_first_weights_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[Tensor] = []

    def weights(moment: Moment) -> Tensor:
        return torch.cat([p.detach().flatten() for p in moment.drawn_again()["main"].parameters()])

    factory.use_method(
        monkeypatch,
        begin=lambda models, moment, settings: found.append(weights(moment)),
        events=events_at(0, 4),
        event=lambda models, moment, settings: found.append(weights(moment)),
    )
    settings = factory.settings(epochs=2)
    run = factory.run(settings)
    first = torch.cat([p.detach().flatten() for p in run.models["main"].parameters()])
    assert torch.equal(found[0], first)
    factory.finish(run)
    _, at_start, later = found
    assert not torch.equal(at_start, first) and not torch.equal(later, at_start)
    # Biases are drawn, scales of norms are not: each comes from its own initialiser.
    again = run.networks.drawn_again("init@0")["main"]
    assert torch.equal(torch.cat([p.detach().flatten() for p in again.parameters()]), at_start)


def test_drawing_again_leaves_the_global_generator_alone() -> None:
    run = factory.run(factory.settings())
    before = torch.random.get_rng_state()
    run.networks.drawn_again("init@3")
    assert torch.equal(torch.random.get_rng_state(), before)


# Weights and state of the optimiser.


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


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "lars", "rmsprop"])
def test_to_forget_everything_is_a_new_optimiser(
    optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        live = moment._run.optimiser.state()
        assert any(value.any() for value in live.values()), "nothing to forget"
        moment.forget()
        fresh = moment._run.new_optimiser().state()
        assert live.keys() == fresh.keys() and live
        for name, value in fresh.items():
            assert torch.equal(live[name], value), name

    acting(monkeypatch, act, 5)
    factory.train(factory.settings(optimiser=optimiser, lr=0.01, epochs=2))


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "lars"])
def test_to_forget_a_part_leaves_the_others_and_counters_as_they_were(
    optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        flat, live = moment._run.networks.flat, moment._run.optimiser.state()
        before = {name: value.clone() for name, value in live.items()}
        moment.forget(("main.head",))
        for name, value in live.items():
            if value.shape != flat.data.shape:
                assert torch.equal(value, before[name]), "a counter"
                continue
            for parameter, part in flat.views(value).items():
                if parameter.startswith("main.head."):
                    assert not part.any()
                else:
                    assert torch.equal(part, flat.views(before[name])[parameter]) and part.any()

    acting(monkeypatch, act, 5)
    factory.train(factory.settings(optimiser=optimiser, lr=0.01, epochs=2))


def test_a_run_that_forgets_all_goes_on_as_one_that_begins_from_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adam counts its steps, so one counter that was left would show in the first update."""
    settings = factory.settings(optimiser="adam", lr=0.01, epochs=2)
    acting(monkeypatch, lambda models, moment: moment.forget(), 4)
    run = factory.run(settings)
    run.train_epoch()
    flat, data = run.networks.flat, run.flat.data.clone()
    run.train_epoch()
    other = factory.run(settings)
    other.train_epoch()
    other.flat.data.copy_(data)
    for name, value in other._new_optimiser().state().items():
        other.optimiser.state()[name].copy_(value)
    other._events = frozenset()
    other.train_epoch()
    assert torch.equal(flat.data, other.flat.data)


@pytest.mark.parametrize("parts", [("main.haed",), ("main.head", "head"), "main.head", ("fc",)])
def test_a_part_that_nothing_is_in_is_refused(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    acting(monkeypatch, lambda models, moment: moment.forget(parts), 1)
    with pytest.raises(UserError, match=r"`moment.forget` takes a tuple of parts, each with a"):
        factory.train(factory.settings(epochs=1))


@pytest.mark.parametrize("buffers", ["shared", "average"])
def test_the_average_begins_again_from_the_trained_networks(
    buffers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        assert not torch.equal(moment._run.networks.averaged.data, moment._run.networks.flat.data)  # type: ignore[union-attr]
        moment.restart_average()
        main, average = models["main"].state_dict(), models["ema"].state_dict()
        assert all(torch.equal(main[name], value) for name, value in average.items())

    acting(monkeypatch, act, 5)
    factory.train(factory.settings(epochs=2, ema_decay=0.9, ema_buffers=buffers))


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
