"""Self-training in stages: turns, coins, candidates, pseudo-labels, and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.reinit import same, state_of
from factories.threads import one_thread
from scipy.stats import linregress

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment
from cyclery.engine.run import Run
from cyclery.engine.stream import Data
from cyclery.methods import self_training
from cyclery.methods.self_training import Settings, turns

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
FEW: Json = {"test": 300, "validation": 100, "labels": None, "per_class": 4, "unlabelled": "rest"}
KINDS = ("fist", "rist", "gist", "pseudo", "human")


def settings(kind: str = "gist", epochs: int = 3, more: Json | None = None, **chosen: Any) -> Json:
    """Return settings of a run of two stages, 4 updates of 20 images an epoch."""
    own = {"kind": kind, "stages": 2, **chosen}
    given: Json = {"split": FEW, "epoch_images": 80, "batch": 20, "mu": 2, **(more or {})}
    return factory.settings("self_training", epochs=epochs, method_settings=own, **given)


def watched(run: Run) -> list[tuple[int, Json, Json]]:
    """Train a run; return its weights before and after each event, with the update."""
    seen, honest = [], run.method.event

    def event(models: Any, moment: Moment, chosen: Any) -> None:
        before = state_of(run)
        honest(models, moment, chosen)
        seen.append((moment.update, before, state_of(run)))

    run.method = replace(run.method, event=event)
    factory.finish(run)
    return seen


# Turns.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("fist", [(0, "human"), (1, "mixed"), (2, "mixed")]),
        ("rist", [(0, "human"), (1, "coin"), (2, "coin")]),
        ("gist", [(0, "human"), (1, "human"), (1, "pseudo"), (2, "human"), (2, "pseudo")]),
        ("pseudo", [(0, "human"), (1, "pseudo"), (2, "pseudo")]),
        ("human", [(0, "human"), (1, "human"), (2, "human")]),
    ],
)
def test_turns_of_each_kind(kind: Any, expected: list[tuple[int, str]]) -> None:
    chosen = Settings(kind=kind, stages=2)
    assert turns(chosen) == expected
    assert turns(replace(chosen, teacher="given")) == expected[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_every_turn_begins_with_the_schedule_and_a_new_optimiser(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, forgotten = 5 if kind == "gist" else 3, []
    honest = Moment.forget

    def forget(moment: Moment) -> None:
        forgotten.append(moment.update)
        honest(moment)

    monkeypatch.setattr(Moment, "forget", forget)
    cosine = {"kind": "cosine", "peak": 0.1}
    run = factory.run(
        settings(kind, 4, {"lr": {"kind": "repeated", "times": count, "schedule": cosine}})
    )
    rates = run.table.columns["lr"]
    starts = np.flatnonzero(rates == rates.max()).tolist()
    assert sorted(run._events) == [*starts, run.updates] and len(starts) == count
    factory.finish(run)
    assert forgotten == [*starts[1:], run.updates]


def test_labels_of_a_turn_are_human_or_not() -> None:
    # Epochs have five updates, as have the turns of `gist`.
    wide: Json = {"epoch_images": 100}
    assert factory.train(settings("gist", 5, wide)).curve["train_human"] == [1, 1, 0, 1, 0]
    assert factory.train(settings("fist", 3, wide)).curve["train_human"] == [1, 0.5, 0.5]
    quarter = factory.train(settings("fist", 3, wide, alpha=0.25))
    assert quarter.curve["train_human"] == [1, 0.25, 0.25]
    assert quarter.curve["train_mask_rate"] == [0, 0.75, 0.75]
    assert factory.train(settings("pseudo", 3, wide)).curve["train_human"] == [1, 0, 0]


def test_coins_come_from_the_seed_and_the_stage_alone() -> None:
    found = {}
    for seed in range(6):
        run = factory.run(settings("rist", more={"seed": seed}, stages=8), parents={})
        long = factory.run(settings("rist", 6, {"seed": seed, "lr": 0.01}, stages=8))
        coins = [run.models["book"].coins.tolist() for run in (run, long)]
        assert coins[0] == coins[1] and set(coins[0]) <= {0.0, 1.0}
        found[seed] = coins[0][1:]
    assert len({tuple(coins) for coins in found.values()}) > 4
    share = np.mean(list(found.values()))
    assert 0.3 < share < 0.7, "no fair coin"
    # And they are what the stages are trained on.
    run = factory.train(settings("rist", 3, {"epoch_images": 100}))
    assert run.curve["train_human"] == [1, *run.models["book"].coins[1:].tolist()]


def test_too_few_updates_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.stages: .* 12 \(found 6, which make 13\)"):
        factory.run(settings("gist", stages=6))


# Candidates.


@pytest.mark.parametrize(
    ("figures", "kept"), [((0.8, 0.5), "human"), ((0.5, 0.8), "pseudo"), ((0.7, 0.7), "human")]
)
def test_gist_keeps_the_better_of_two_candidates_that_begin_alike(
    figures: tuple[float, float], kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, asked = iter(figures * 2), []

    def accuracy(moment: Moment, part: str = "validation") -> float:
        asked.append((moment.update, part))
        return next(said)

    monkeypatch.setattr(Moment, "accuracy", accuracy)
    run = factory.run(settings("gist", 5, {"epoch_images": 100}))
    seen = watched(run)
    assert [update for update, _, _ in seen] == [0, 5, 10, 15, 20, 25]
    assert asked == [(at, "validation") for at in (10, 15, 20, 25)]
    for first in (1, 3):
        (_, _, start), (_, human, again), (_, pseudo, end) = seen[first : first + 3]
        assert same(again, start), "the second candidate begins elsewhere"
        assert not same(human, pseudo)
        assert same(end, human if kept == "human" else pseudo)
    assert same(state_of(run), seen[-1][2])


def misled(monkeypatch: pytest.MonkeyPatch, change: Callable[[Data, Json], Data]) -> Run:
    """Train GIST on data that are changed, given the split; return the run."""
    with monkeypatch.context() as patch:
        honest = Data.trained_on
        patch.setattr(
            Data,
            "trained_on",
            lambda data, chosen, seed, ids: change(honest(data, chosen, seed, ids), ids),
        )
        return factory.train(settings("gist", 5, {"epoch_images": 200}))


def other_labels(*parts: str) -> Callable[[Data, Json], Data]:
    """Return what makes the labels of parts of a split wrong."""

    def change(data: Data, ids: Json) -> Data:
        wrong = torch.zeros(len(data.labels), dtype=torch.bool)
        for part in parts:
            wrong[torch.from_numpy(ids[part])] = True
        labels = torch.where(wrong, (data.labels + 1) % 10, data.labels)
        assert wrong.any()
        return replace(data, labels=labels)

    return change


def test_the_choice_sees_validation_labels_and_no_hidden_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = factory.train(settings("gist", 5, {"epoch_images": 200}))
    hidden = misled(monkeypatch, other_labels("test", "unlabelled"))
    assert torch.equal(hidden.flat.data, honest.flat.data)
    assert hidden.final()["test_accuracy"] != honest.final()["test_accuracy"]

    def black(data: Data, ids: Json) -> Data:
        images = data.images.clone()
        images[torch.from_numpy(ids["test"])] = 0
        return replace(data, images=images)

    assert torch.equal(misled(monkeypatch, black).flat.data, honest.flat.data)
    chosen = misled(monkeypatch, other_labels("validation"))
    assert not torch.equal(chosen.flat.data, honest.flat.data), "the choice never matters"


# Pseudo-labels and the loss.


@pytest.mark.parametrize("kind", ["fist", "gist"])
def test_pseudo_labels_are_those_of_the_network_that_a_stage_begins_with(kind: str) -> None:
    run = factory.run(settings(kind, 5, {"epoch_images": 100}))
    plan, events = turns(run.method_settings), sorted(run._events)
    pool, expected = run.ids["unlabelled"], torch.empty(0)
    held: list[int] = []
    honest = run.method.step

    def step(models: Any, batch: Any, *rest: Any) -> Any:
        nonlocal expected
        stage = plan[np.searchsorted(events, int(run.update), side="right") - 1][0]
        if stage and (not held or held[-1] != stage):
            held.append(stage)
            net, norms = models["main"], state_of(run)
            net.eval()
            with torch.no_grad():
                expected = run.evaluator.outputs(net, pool).argmax(1)
            net.train()
            assert same(state_of(run), norms)
        if stage:
            assert torch.equal(models["book"].labels[pool], expected), "they change in a stage"
        return honest(models, batch, *rest)

    run.method = replace(run.method, step=step)
    factory.finish(run)
    assert held == [1, 2]
    share = float((expected == run.data.labels[pool]).double().mean())
    assert run.final()["unlabelled_stage_2_accuracy"] == pytest.approx(share, abs=1e-12)


def test_the_loss_is_the_cross_entropy_on_labels_of_both_kinds() -> None:
    run = factory.begun(settings("fist", alpha=0.25))
    generator = torch.Generator().manual_seed(0)
    book = run.models["book"]
    book.labels.copy_(torch.randint(10, book.labels.shape, generator=generator))
    book.human.fill_(0.25)
    batch = run._batch(20, None)
    loss, logs = factory.stepped(run, batch)
    told = book.labels[batch.unlabelled.ids]
    x = torch.cat([batch.x[:5], batch.unlabelled.x[5:]])
    y = torch.cat([batch.y[:5], told[5:]])
    chances = run.models["main"](x).log_softmax(1)
    torch.testing.assert_close(loss, -chances[torch.arange(20), y].mean())
    assert float(logs["human"]) == 0.25 and float(logs["mask_rate"]) == 0.75
    right = (told[5:] == batch.unlabelled.y[5:]).sum() / 20
    torch.testing.assert_close(logs["pseudo_correct"], right)


def test_the_gradient_flows_through_the_network_alone() -> None:
    run = factory.begun(settings("gist"))
    loss, logs = factory.stepped(run)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in run.models["main"].parameters())
    for name in ("reached", "start", "candidate"):
        assert all(p.grad is None for p in run.models[name].parameters()), name
    assert not any(value.requires_grad for value in logs.values())
    assert {name.partition(".")[0] for name in run.flat.params} == {"main"}


def test_human_labels_alone_are_supervised_training_that_begins_again() -> None:
    """`reinit` without any re-initialisation has the same stages, and takes no unlabelled image."""
    own = factory.train(settings("human", 4, stages=3))
    split = {**FEW, "unlabelled": None}
    given = factory.settings(
        "reinit", epochs=4, split=split, epoch_images=80, batch=20,
        method_settings={"stages": 4, "reset": "none"},
    )  # fmt: skip
    other = factory.train(given)
    assert torch.equal(own.flat.data, other.flat.data)
    assert own.curve["train_loss"] == other.curve["train_loss"]


# Budgets and figures.


@pytest.mark.parametrize("kind", KINDS)
def test_a_pseudo_labelled_image_stands_in_for_a_labelled_one(kind: str) -> None:
    method = methods.load("self_training")
    chosen = method.chosen({"kind": kind})
    assert method.forwards(chosen, {"labelled": 20, "unlabelled": 20}) == 20
    run = factory.begun(settings(kind))
    passed, batch = [], run._batch(20, None)
    run.models["main"].register_forward_hook(lambda net, given, _: passed.append(len(given[0])))
    factory.stepped(run, batch)
    assert passed == [20]


def test_a_stage_of_gist_trains_twice_as_much_as_one_of_rist() -> None:
    made = {kind: len(turns(Settings(kind=kind, stages=6))) for kind in ("gist", "rist", "fist")}
    assert made == {"gist": 13, "rist": 7, "fist": 7}


def test_figures_by_stage_are_those_of_the_networks_that_stages_ended_with() -> None:
    run = factory.run(settings("gist", 5, {"epoch_images": 100}))
    seen = watched(run)
    ends = [seen[1][2], seen[3][2], seen[5][2]]
    final, ids = run.final(), run.ids["test"]
    net = run.models["main"]
    expected = []
    for end in ends:
        net.load_state_dict(end)
        net.eval()
        found = run.evaluator.outputs(net, ids).argmax(1)
        expected.append(float((found == run.data.labels[ids]).double().mean()))
    assert [final[f"test_stage_{stage}_accuracy"] for stage in range(3)] == expected
    assert expected[-1] == final["test_accuracy"] and len(set(expected)) > 1
    line = linregress(range(3), expected)
    assert final["test_accuracy_slope"] == pytest.approx(line.slope)


def test_a_slope_is_that_of_the_least_squares_line() -> None:
    y = [0.7, 0.72, 0.69, 0.8, 0.81, 0.8, 0.83]
    assert self_training.slope(y) == pytest.approx(np.polyfit(range(7), y, 1)[0])
    assert self_training.slope([0.5, 0.7]) == pytest.approx(0.2)


def test_a_given_teacher_is_stage_0() -> None:
    given = settings("gist", 4, {"epoch_images": 100}, teacher="given", stages=2)
    teacher = factory.untrained("teacher")
    run = factory.run(
        {**given, "init": "start", "init_share": None, "parents": {"start": ["0" * 24]}},
        parents={"start": [teacher]},
    )
    start = state_of(run)
    seen = watched(run)
    assert [update for update, _, _ in seen] == [0, 5, 10, 15, 20]
    assert same(seen[0][1], start) and run.curve["train_human"] == [1, 0, 1, 0]
    ids, net = run.ids["test"], run.models["main"]
    net.load_state_dict(start)
    net.eval()
    found = run.evaluator.outputs(net, ids).argmax(1) == run.data.labels[ids]
    final = run.final()
    assert final["test_stage_0_accuracy"] == float(found.double().mean())


def test_averaged_weights_are_not_what_is_chosen_by() -> None:
    plain = factory.train(settings("gist", 5))
    averaged = factory.train(settings("gist", 5, {"ema_decay": 0.9}))
    assert torch.equal(plain.flat.data, averaged.flat.data)
    assert plain.final()["test_accuracy"] == averaged.final()["test_accuracy"]


def test_a_candidate_is_judged_by_what_an_evaluation_says_of_validation_images() -> None:
    run = factory.run(settings("gist"))
    run.train_epoch()
    moment = Moment(run._inside, 4, began=True)
    assert moment.accuracy("validation") == run.evaluate("validation")["accuracy"]
