"""Hooks between updates: when they are called, what they draw, and what becomes of state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.moments import acting, events_at, resumed
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


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


def test_a_rare_draw_of_a_step_is_found_though_an_event_comes_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps are watched one by one at first, then an epoch at a time."""
    step, made = factory.methods.load("supervised").step, []

    def drawing(models: Any, *rest: Any) -> Any:
        made.append(1)
        if len(made) == 6:
            torch.rand(1)
        return step(models, *rest)

    acting(monkeypatch, lambda models, moment: None, 7, step=drawing)
    with pytest.raises(UserError, match=r"draws from torch's global generator in its `step`"):
        factory.train(factory.settings(epochs=3))


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


@pytest.mark.parametrize(
    ("optimiser", "part"), [("sgd", "main.head"), ("adam", "head"), ("lars", "main.head")]
)
def test_to_forget_a_part_leaves_the_others_and_counters_as_they_were(
    optimiser: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        flat, live = moment._run.networks.flat, moment._run.optimiser.state()
        before = {name: value.clone() for name, value in live.items()}
        moment.forget((part,))
        for name, value in live.items():
            if value.shape != flat.data.shape:
                assert torch.equal(value, before[name]), "a counter"
                continue
            for parameter, own in flat.views(value).items():
                if parameter.startswith("main.head."):
                    assert not own.any()
                else:
                    assert torch.equal(own, flat.views(before[name])[parameter]) and own.any()

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
    for name, value in other.new_optimiser().state().items():
        other.optimiser.state()[name].copy_(value)
    other._events = frozenset()
    other.train_epoch()
    assert torch.equal(flat.data, other.flat.data)


@pytest.mark.parametrize("parts", [("main.haed",), ("head", "haed"), "main.head", ("fc",)])
def test_a_part_that_nothing_is_in_is_refused(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    acting(monkeypatch, lambda models, moment: moment.forget(parts), 1)
    with pytest.raises(
        UserError, match=r"`moment.forget`(: nothing here is .* in it| takes a tuple)"
    ):
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


def test_frozen_weights_that_an_event_changes_are_averaged_and_resumed_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act(models: dict[str, nn.Module], moment: Moment) -> None:
        with torch.no_grad():
            models["main"].get_parameter("head.weight").mul_(2)
        moment.restart_average()

    acting(monkeypatch, act, 1)
    settings: Any = {**factory.settings(epochs=2, ema_decay=0.9), "frozen": ["head"]}
    run = factory.run(settings)
    first = run.models["main"].get_parameter("head.weight").clone()
    run.train_epoch()
    state, again = run.state(), factory.run(settings)
    again.load_state(state, 1, run.curve)
    for name in ("main", "ema"):
        for each in (run, again):
            assert torch.equal(each.models[name].get_parameter("head.weight"), 2 * first)
