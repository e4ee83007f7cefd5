"""Pairing: arms of a seed see the same samples in the same views, from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.batches import watch
from torch import Tensor

from cyclery import methods
from cyclery.engine.run import Run
from cyclery.engine.stream import Stream, derive

SHIFT = {"op": "shift", "size": 1}
CYCLE = factory.cycle(8e-4, 2e-4)


def by_epoch(run: Run, seen: list[Any]) -> list[tuple[Tensor, Tensor]]:
    """Join the batches of each epoch."""
    epochs, start = [], 0
    for steps in run.table.steps:
        part = seen[start : start + int(steps)]
        epochs.append((torch.cat([ids for ids, _ in part]), torch.cat([x for _, x in part])))
        start += int(steps)
    return epochs


def views(monkeypatch, settings, extra=lambda generator: None):
    seen = watch(monkeypatch, extra)
    run = factory.train(settings)
    return run, by_epoch(run, seen)


def draw_more(generator: torch.Generator) -> None:
    torch.rand(17, generator=generator)


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 40},
        {"batch": factory.cycle(25, 100)},
        {"model": "wrn"},
        {"optimiser": "adam", "lr": 0.001, "evaluations": 3, "weight_decay": CYCLE},
    ],
    ids=["batch", "cyclical batch", "dropout", "optimiser"],
)
def test_arms_see_the_same_samples_in_the_same_views(monkeypatch, other):
    plain, expected = views(monkeypatch, factory.settings())
    arm, found = views(monkeypatch, factory.settings(**other), draw_more)
    for name, ids in plain.ids.items():
        assert torch.equal(arm.ids[name], ids)
    for (ids, x), (other_ids, other_x) in zip(expected, found, strict=True):
        assert len(ids) == 200
        assert torch.equal(other_ids, ids)
        assert torch.equal(other_x, x)
    # The control of this very test: another epoch, and another seed, look different.
    assert not torch.equal(expected[0][0], expected[1][0])


def test_augmentation_that_follows_leaves_the_views_before_it_alone(monkeypatch):
    taken: list[Tensor] = []
    take = Stream.take

    def record(self, size):
        found = take(self, size)
        taken.append(found[1].clone())
        return found

    monkeypatch.setattr(Stream, "take", record)
    factory.train(factory.settings(augment=(SHIFT,)))
    short, taken[:] = list(taken), []
    factory.train(factory.settings(augment=(SHIFT, {"op": "randaugment", "n": 2, "m": 5.0})))
    assert taken[0].shape == (50, 4)
    for two, four in zip(short, taken, strict=True):
        assert torch.equal(two, four[:, :2])


def test_another_seed_sees_other_samples_views_and_weights(monkeypatch):
    one, first = views(monkeypatch, factory.settings())
    two, second = views(monkeypatch, factory.settings(seed=1))
    assert not torch.equal(one.ids["test"], two.ids["test"])
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(
        factory.run(factory.settings()).flat.data, factory.run(factory.settings(seed=1)).flat.data
    )


def test_every_purpose_has_a_seed_of_its_own():
    purposes = ("order", "weak/0", "weak/1", "method", "network", "init")
    found = {derive(seed, purpose) for seed in range(50) for purpose in purposes}
    assert len(found) == 50 * len(purposes)


@pytest.mark.parametrize("method", methods.names())
def test_initial_weights_depend_on_the_seed_only(method):
    torch.manual_seed(5)
    plain = factory.run(factory.settings(model=factory.MODELS.get(method, "")))
    torch.manual_seed(6)
    other = factory.run(factory.settings(method, batch=20, lr=0.5))
    # Modules that a method adds come after the network.
    added = other.models["main"].state_dict()
    for name, value in plain.models["main"].state_dict().items():
        assert torch.equal(value, added[name]), name


@pytest.mark.parametrize("model", ["wrn", "stochastic_depth"])
def test_noise_in_a_network_is_the_runs_own(model):
    settings = factory.settings(model=model)
    alone = factory.train(settings)
    run = factory.run(settings)
    beside = factory.run(factory.settings(model=model, seed=1))
    while not run.finished:
        run.train_epoch()
        beside.train_epoch()
        torch.rand(3)
    assert torch.equal(run.flat.data, alone.flat.data)


def test_evaluating_more_often_changes_no_weight():
    seldom, often = (factory.settings(epochs=4, evaluations=n) for n in (1, 4))
    assert torch.equal(factory.train(seldom).flat.data, factory.train(often).flat.data)
