"""A run: steps without the host, divergence, the curve, starts, weights as torch's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.measuring import evaluation_epochs
from cyclery.engine.run import Diverged

# A step asks the host for nothing.

SYNCHRONISES = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select",
                "unique", "bincount", "_unique2", "allclose")  # fmt: skip


class HostWatch(TorchDispatchMode):
    """Notes every operation that waits for the device, or whose shape depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masks = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if masks or name.removesuffix("_") in SYNCHRONISES or name in SYNCHRONISES:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def host_watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostWatch]:
    """Watch what torch dispatches, and what it does not."""
    watch = HostWatch()
    with monkeypatch.context() as patch, watch:
        for name in ("tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
            inner = getattr(Tensor, name)

            def noted(self, *given, _inner=inner, _name=name, **named):
                watch.found.append(_name)
                return _inner(self, *given, **named)

            patch.setattr(Tensor, name, noted)
        yield watch


CASES = [factory.everything(name) for name in methods.names()] + [
    factory.everything("supervised", model="wrn"),
    factory.everything("supervised", model="stochastic_depth"),
    factory.everything("supervised", model="small_cnn", optimiser="adam"),
    factory.everything("cyclical_focal", method_settings={"control": "scale_matched"}),
    factory.everything("cyclical_focal", method_settings={"control": "mean_weight"}),
    factory.everything("supervised", optimiser="adamw"),
    factory.everything("supervised", augment=({"op": "cutout", "size": 4}, {"op": "erasing"})),
]


@pytest.mark.parametrize(
    "settings", CASES, ids=lambda s: "-".join((s["method"]["name"], s["model"]["name"]))
)
def test_a_step_never_waits_for_the_host(settings, monkeypatch):
    run = factory.run(settings)
    run.begin_epoch()
    with host_watch(monkeypatch) as watch:
        run.step(25)
        run.step(25)
    assert watch.found == []
    assert watch.count > 100


@pytest.mark.parametrize(
    "ask",
    [lambda t: t.item(), float, bool, lambda t: t.tolist(), lambda t: t[t > 0], torch.nonzero,
     lambda t: t.view(1).numpy()],
)  # fmt: skip
def test_the_watch_sees_a_step_that_asks(ask, monkeypatch):
    def step(inner, *given):
        loss, logs = inner(*given)
        ask(loss.detach())
        return loss, logs

    factory.use_step(monkeypatch, step)
    run = factory.run(factory.settings())
    run.begin_epoch()
    with host_watch(monkeypatch) as watch:
        run.step(50)
    assert watch.found


# Divergence.


def test_a_diverging_run_says_at_which_update():
    run = factory.run(factory.settings(epochs=20, lr=1e6))
    with pytest.raises(Diverged) as caught:
        factory.finish(run)
    losses = run.trace(0, run.updates)[:, 0]
    assert not math.isfinite(losses[caught.value.update])
    assert np.isfinite(losses[: caught.value.update]).all()
    assert len(run.curve["epoch"]) == run.epoch - 1


def test_a_run_whose_last_update_ruins_the_weights_diverged(monkeypatch):
    # The last loss is still finite: only the evaluation can see it.
    run = factory.run(factory.settings(epochs=2, evaluations=1))
    run.train_epoch()
    run.evaluate_on_the_way()
    run.train_epoch()
    next(iter(run.flat.views(run.flat.data).values())).fill_(math.nan)
    with pytest.raises(Diverged) as caught:
        run.evaluate_on_the_way()
    assert caught.value.update == run.updates - 1
    assert run.curve["eval_epoch"] == []


# Other promises.


def test_evaluations_are_spread_evenly_and_include_the_last_epoch():
    for epochs in range(1, 30):
        for count in (1, 2, 5, 10):
            found = evaluation_epochs({"epochs": epochs, "evaluations": count})
            assert max(found) == epochs
            assert min(found) >= 1
            assert len(found) == min(count, epochs)


def test_the_curve_holds_the_mean_loss_and_the_evaluations():
    run = factory.train(factory.settings(epochs=4, evaluations=2))
    assert run.curve["epoch"] == [1, 2, 3, 4]
    assert run.curve["eval_epoch"] == [2, 4]
    losses = run.trace(0, run.updates)[:, 0].reshape(4, -1).mean(1)
    assert run.curve["train_loss"] == pytest.approx(losses)
    final = run.final()
    for name in ("val_accuracy", "val_nll", "test_accuracy", "test_nll"):
        assert len(run.curve[name]) == 2
        assert run.curve[name][-1] == final[name]
    assert final["test_accuracy"] > 0.4
    assert sum(final["train_class_count"]) == 200


def test_a_run_starts_from_its_parents_weights():
    parent = factory.train(factory.settings())
    start = {"init": "start", "init_share": 1.0}
    parents = {"start": [factory.trained(parent)]}
    child = factory.run({**factory.settings(epochs=1), **start}, parents=parents)
    found = child.weights()
    assert all(torch.equal(found[name], value) for name, value in parent.weights().items())
    assert any("running_mean" in name for name in found)


def test_weights_that_do_not_fit_are_named():
    parent = factory.run(factory.settings(model_settings={"hidden": [16]}))
    with pytest.raises(UserError, match=r"do not fit this network \(first: .*weight\)"):
        start = {"init": "start", "init_share": 1.0}
        factory.run({**factory.settings(), **start}, parents={"start": [factory.trained(parent)]})


def test_the_engine_trains_what_torch_trains():
    """A loop with ``torch.optim.SGD`` on the same batches ends at the same weights."""
    settings = factory.settings(
        epochs=3, augment=(), lr={"kind": "cosine", "peak": 0.1}, weight_decay=0.01, clip_norm=1.0
    )
    run, net = factory.train(settings), factory.run(settings).models["main"]
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": w} for w in (0.01, 0.0)]
    for p in net.parameters():
        fresh = nn.Parameter(p.detach().clone())
        p.data, p.grad = fresh.data, None
        groups[p.ndim <= 1]["params"].append(p)
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    mirror = factory.run(settings).feeds["labelled"]
    images, labels, manifest = run.data.images, run.data.labels, run.data.manifest
    update = 0
    for _ in range(3):
        mirror.begin_epoch(50)
        for _ in range(4):
            ids, *_ = mirror.take(50)
            x = (images[ids] / manifest["max_value"] - manifest["mean"][0]) / manifest["std"][0]
            optimiser.zero_grad()
            F.cross_entropy(net(x), labels[ids]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = 0.05 * (1 + math.cos(math.pi * update / 12))
            optimiser.step()
            update += 1
    for name, value in run.models["main"].state_dict().items():
        assert torch.allclose(value, net.state_dict()[name], atol=1e-5), name
