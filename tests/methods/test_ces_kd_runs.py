"""Whole runs of CES-KD/op: who measures difficulty, and what remembers it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.ces_kd import FOLDS, by_numpy, each_path
from factories.replay import Recorder
from factories.threads import one_thread
from torch import Tensor

from cyclery import methods, models
from cyclery.common.errors import UserError
from cyclery.engine.hooks import Moment
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch
from cyclery.engine.teachers import Trained
from cyclery.methods import ces_kd

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@cache
def folds() -> tuple[dict[str, Trained], dict[str, set[int]]]:
    """Return networks that each left a fold out, and the samples that each was trained on."""
    found, marks = {}, {}
    for number, name in enumerate(FOLDS):
        split = {"folds": 5, "fold": number}
        # Batches that divide the rows: every one of them is seen.
        run = factory.run(factory.settings(split=split, epochs=1, batch=20))
        seen: set[int] = set()
        made = run._batch

        def batch(*given: Any, made: Any = made, seen: set[int] = seen) -> Batch:
            found = made(*given)
            seen.update(found.ids.tolist())
            return found

        run._batch = batch
        factory.finish(run)
        found[name], marks[name] = factory.trained(run), seen
    return found, marks


def parents() -> dict[str, list[Trained]]:
    return {name: [trained] for name, trained in folds()[0].items()}


def settings(given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return factory.settings("ces_kd", method_settings=given or {}, **changes)


def strata(run: Run) -> Tensor:
    return run.models["curriculum"].get_buffer("strata")


def test_only_networks_that_did_not_see_a_sample_measure_its_difficulty(monkeypatch):
    """They are trained, and what they were trained on is noted as it happens."""
    _, marks = folds()
    plain = factory.run(factory.settings())
    ids = plain.ids["train"].tolist()
    assert all(len(seen) == 160 and seen <= set(ids) for seen in marks.values())
    assert all(sum(i in seen for seen in marks.values()) == 4 for i in ids)
    difficulty = dict(zip(ids, np.random.default_rng(0).permutation(len(ids)), strict=True))

    def answers(self: Moment, name: str) -> Tensor:
        said = [math.nan if i in marks[name] else -float(difficulty[i]) for i in self.ids.tolist()]
        return torch.tensor(said)[:, None].expand(-1, 10)

    monkeypatch.setattr(Moment, "answers", answers)
    run = factory.run(settings({"experts": 4}), parents=parents())
    expected = by_numpy(np.array([difficulty[i] for i in ids], dtype=float), 4)
    assert strata(run)[ids].tolist() == expected.tolist()


def test_the_difficulty_is_the_held_out_loss_on_images_that_are_not_augmented():
    trained, marks = folds()
    run = factory.run(settings({"experts": 5}, augment=({"op": "cutout", "size": 5},)),
                      parents=parents())  # fmt: skip
    ids, data = run.ids["train"], factory.data()
    losses = torch.full((len(ids),), math.nan, dtype=torch.float64)
    manifest = data.manifest
    mean, std = (torch.tensor(manifest[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    x = (data.images[ids].float() / manifest["max_value"] - mean) / std
    for name, parent in trained.items():
        net = models.build("bn_mlp", {"hidden": [32]}, (1, 8, 8), 10)
        net.load_state_dict(parent.weights)
        net.eval()
        out = torch.tensor([i not in marks[name] for i in ids.tolist()])
        with torch.no_grad():
            each = F.cross_entropy(net(x), data.labels[ids], reduction="none").double()
        losses[out] = each[out]
    assert strata(run)[ids].tolist() == by_numpy(losses.numpy(), 5).tolist()
    assert all(net.training for net in run.networks.models.values())


def test_folds_that_are_none_are_one_clear_message():
    whole = factory.untrained("expert-1")
    with pytest.raises(UserError, match=r"^parents: the folds leave .* `folds: 5` and `fold` 0"):
        factory.run(settings(), parents={name: [whole] for name in FOLDS})
    twice = {**parents(), "fold-1": parents()["fold-0"]}
    with pytest.raises(UserError, match="the folds leave some training samples"):
        factory.run(settings(), parents=twice)


def test_a_random_assignment_is_the_seeds_alone():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        run = factory.run(settings({"assignment": "random"}, seed=seed,
                                   split={"choose": "first"}))  # fmt: skip
        found.append(strata(run)[run.ids["train"]])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("changes", [{}, {"epoch_images": 330, "batch": 60}])
def test_each_sample_keeps_its_stratum_whatever_the_order(monkeypatch, changes):
    declared, seen = methods.load("ces_kd"), []

    def step(models, batch, row, chosen, generator):
        loss, logs = declared.step(models, batch, row, chosen, generator)
        unlocked = ces_kd.unlocked_experts(row["progress"], chosen).item()
        seen.append((batch.ids.tolist(), unlocked, logs["expert"].item()))
        return loss, logs

    factory.use_method(monkeypatch, "ces_kd", step=step)
    run = factory.run(settings(epochs=6, **changes), parents=parents())
    first = strata(run).clone()
    factory.finish(run)
    assert torch.equal(strata(run), first) and len(first) == len(factory.data().labels)
    by_id = dict(enumerate(first.tolist()))
    for ids, unlocked, expert in seen:
        experts = [min(by_id[i], unlocked - 1) + 1 for i in ids]
        assert expert == pytest.approx(np.mean(experts))
    assert {unlocked for _, unlocked, _ in seen} == {1, 2, 3}
    orders = {tuple(ids) for ids, *_ in seen}
    assert len(orders) == len(seen)


@pytest.mark.parametrize("given", [{}, {"unlocking": "easy_first", "assignment": "random"}])
def test_a_resumed_run_remembers_the_strata(monkeypatch, given):
    wanted = settings(given, epochs=4)
    whole, half = (factory.run(wanted, parents=parents()) for _ in range(2))
    factory.finish(whole)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    state, name = half.state(), "buffer.curriculum.strata"
    assert state[name].any()
    # What is measured anew at the start does not matter: it is what was saved that counts.
    factory.use_method(monkeypatch, "ces_kd", begin=lambda *given: None)
    for forgotten in (False, True):
        rest = factory.run(wanted, parents=parents())
        assert not strata(rest).any()
        taken = {**state, name: torch.zeros_like(state[name])} if forgotten else state
        rest.load_state(taken, 2, {key: list(values) for key, values in half.curve.items()})
        factory.finish(rest)
        same = all(torch.equal(v, rest.state()[k]) for k, v in whole.state().items())
        assert same != forgotten
        assert (rest.curve == whole.curve) != forgotten


@each_path
def test_a_replayed_run_equals_an_eager_one(given):
    wanted = factory.everything(
        "ces_kd", method_settings=given, epochs=3, soft=factory.cycle(1.0, 0.3),
        progress={"kind": "linear", "start": 0.0, "end": 1.0, "clock": "epoch"},
    )  # fmt: skip
    eager = factory.train(wanted, parents=parents())
    replayed = factory.train(wanted, parents=parents(), recorder=Recorder())
    first, second = eager.state(), replayed.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert eager.curve == replayed.curve
    # The memory is neither averaged nor part of the network that is kept.
    assert "ema.curriculum" not in eager.models
    assert not any("strata" in name for name in eager.weights())


def test_it_says_that_it_is_the_projects_own():
    method = methods.load("ces_kd")
    assert method.title == "CES-KD/op" and method.own_definition
    assert method.quantities == ("temperature", "soft", "progress") and method.capture
    assert ces_kd.Settings() == ces_kd.Settings(
        temperature=4.0, soft=0.9, experts=3, difficulty="cv_loss", assignment="curriculum",
        unlocking="gradual", rho=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("given", [{"experts": 3}, {"experts": 3, "assignment": "single"}], ids=str)
def test_forward_passes_are_counted_as_they_are_made(given):
    run = factory.run(settings(given, epochs=1), parents=parents())
    passed: list[int] = []
    for name in ("main", *methods.parents_of(run.settings["method"])):
        run.models[name].register_forward_hook(
            lambda module, inputs, output: passed.append(len(inputs[0]))
        )
    run.train_epoch()
    assert run.spent()[1] == sum(passed)
