"""Starts between a new network and a parent's: weights, statistics, and what stays as it was."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.parents import TEACHER, parent_of, planned
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery import models
from cyclery.engine.evaluation import Evaluation
from cyclery.engine.run import Run
from cyclery.engine.teachers import load as load_weights
from cyclery.models.layers import batch_norms

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def started(model: str = "wrn", share: float | None = 0.25, **changes: Any) -> Run:
    """Return a run at its start, ``share`` of the way to its parent."""
    parent = parent_of(model)
    given = factory.settings(model=model, model_settings=parent.settings["model"]["settings"],
                             **changes)  # fmt: skip
    if share is not None:
        given |= {"init": "start", "init_share": share}
    return factory.run(given, parents={"start": [parent]})


def state(run: Run) -> dict[str, Tensor]:
    return run.models["main"].state_dict()


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("model", ["wrn", "preresnet", "small_cnn"])
def test_a_start_lies_between_a_new_network_and_the_parent(model: str, share: float) -> None:
    fresh, found, parent = (
        state(started(model, None)),
        state(started(model, share)),
        parent_of(model),
    )
    for name, value in found.items():
        if not name.endswith(STATISTICS):
            between = (1 - share) * fresh[name].double() + share * parent.weights[name].double()
            torch.testing.assert_close(value.double(), between, rtol=1e-5, atol=1e-7)
    assert model == "preresnet" or any(name.endswith(STATISTICS) for name in found)


def test_all_of_the_way_is_the_parent_itself() -> None:
    for name, value in state(started(share=1.0)).items():
        assert torch.equal(value, parent_of().weights[name]), name


def test_buffers_that_are_numbers_lie_between_and_counters_stay_its_own() -> None:
    class Net(nn.Module):
        def __init__(self, value: float, count: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), value))
            self.register_buffer("mean", torch.full((2,), value))
            self.register_buffer("count", torch.tensor(count))

    own, parent = Net(1.0, 7), Net(3.0, 9)
    load_weights(own, parent.state_dict(), "init", 0.25)
    assert own.weight.tolist() == [1.5] * 3 and own.mean.tolist() == [1.5] * 2
    assert own.count == 7
    load_weights(own, parent.state_dict(), "init")
    assert own.weight.tolist() == [3.0] * 3 and own.count == 9


def measured(run: Run) -> dict[str, Tensor]:
    """Return the statistics of the training samples, not augmented, by one pass over all."""
    net = copy.deepcopy(run.models["main"])
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    for norm in batch_norms(net):
        norm.momentum = 1.0
    with torch.no_grad():
        net(run.plain(run.data.images[run.ids["train"]]))
    return dict(net.named_buffers())


@pytest.mark.parametrize("model", ["bn_mlp", "small_cnn"])
@pytest.mark.parametrize("labels", [200, 1001, 1397])
def test_batch_norm_is_measured_anew_between_two_networks(model: str, labels: int) -> None:
    """However many passes the samples take: none is of a single one, and all count alike."""
    split = {"test": 300, "validation": 100, "labels": labels}
    run, plain = started(model, split=split), started(model, None, split=split)
    assert len(run.ids["train"]) == labels
    expected, between = measured(run), 0
    for name, buffer in run.models["main"].named_buffers():
        if name.endswith(STATISTICS[:2]):
            torch.testing.assert_close(buffer, expected[name], rtol=0.02, atol=0.02)
            lerp = torch.lerp(state(plain)[name], parent_of(model).weights[name], 0.25)
            between += torch.allclose(buffer, lerp, rtol=0.02, atol=0.02)
    assert between == 0
    assert {norm.momentum for norm in batch_norms(run.models["main"])} == {0.1}
    assert run.models["main"].training


def test_measuring_anew_is_exact_where_one_pass_holds_all() -> None:
    run = started("bn_mlp")
    for name, value in measured(run).items():
        if name.endswith(STATISTICS[:2]):
            found = dict(run.models["main"].named_buffers())[name]
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("buffers", ["shared", "average", "own"])
def test_an_average_begins_where_the_network_does(buffers: str) -> None:
    run = started("small_cnn", ema_decay=0.9, ema_buffers=buffers)
    main, average = run.models["main"].state_dict(), run.models["ema"].state_dict()
    for name, value in main.items():
        assert torch.equal(value, average[name]), name


def test_networks_without_batch_norm_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(Evaluation, "outputs", lambda self, net, ids: passes.append(1))
    started("preresnet")
    assert passes == []
    started("bn_mlp")
    assert passes == [1]


def test_a_start_leaves_the_samples_and_their_views_alone() -> None:
    seen = []
    for share in (None, 0.5, 1.0):
        run, ids = started("small_cnn", share), []
        run.begin_epoch()
        for _ in range(3):
            ids.append(run._batch(50, None))
        seen.append(ids)
    for other in seen[1:]:
        for one, two in zip(seen[0], other, strict=True):
            assert torch.equal(one.ids, two.ids) and torch.equal(one.x, two.x)


def test_a_start_between_resumes_as_it_went_on() -> None:
    whole, half = started(epochs=3), started(epochs=3)
    factory.finish(whole)
    half.train_epoch()
    half.evaluate_on_the_way()
    rest = started(epochs=3)
    rest.load_state(half.state(), 1, {key: list(v) for key, v in half.curve.items()})
    factory.finish(rest)
    for name, value in whole.state().items():
        assert torch.equal(value, rest.state()[name]), name


@pytest.mark.parametrize("model", ["preresnet", "resnet"])
def test_networks_with_layer_norm_start_learn_and_teach(model: str) -> None:
    settings = {"depth": 8, "norm": "layer"}
    given = {"model": model, "model_settings": settings, "lr": 0.05, "epochs": 3}
    parent = factory.trained(factory.train(factory.settings(**given)))
    assert not any("running" in name for name in parent.weights)
    wanted = factory.settings("kd", **given) | {"init": "teacher", "init_share": 0.75}
    run = factory.run(wanted, parents={"teacher": [parent]})
    # Nothing but weights decides what it says, so close weights mean close answers.
    start = run.final()["test_kl"]
    far = factory.run(factory.settings("kd", **given), parents={"teacher": [parent]})
    assert start < far.final()["test_kl"]
    factory.finish(run)
    assert run.curve["train_loss"][-1] < run.curve["train_loss"][0]


def test_a_start_may_differ_in_what_matters_in_training_alone(tmp_path: Path) -> None:
    """Whose list is right where no network says anything else for it in evaluation mode."""
    start = {"parents": {"start": TEACHER}, "init": "start", "model": {"dropout": 0.3}}
    planned(tmp_path, {"small": start})
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in models.names():
        kind = models.settings_type(name)
        changed = [f.name for f in dataclasses.fields(kind) if f.name in kind.TRAINING_ONLY]
        extra = {"hidden": 1} if name == "vgg" else {}
        answers = []
        for values in ({}, dict.fromkeys(changed, 0.3)):
            if changed:
                torch.manual_seed(0)
                net = models.build(name, {**extra, **values}, (1, 8, 8), 10).eval()
                answers.append(net(x))
        assert not changed or torch.equal(*answers), name
