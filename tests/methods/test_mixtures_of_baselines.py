"""MixUp of both pools and interpolation consistency: their steps against the formulas."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories import engine as factory
from factories.semi_supervised import assert_same_gradients, buffers_equal, frozen, network, seen
from torch import Tensor, nn

from cyclery import methods
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import ict, mixup_ssl

B, N, CLASSES = 5, 8, 4


def case(seed: int = 0) -> Batch:
    """Return a batch of random images, of which more are unlabelled."""
    g = torch.Generator().manual_seed(seed)
    x, u = (torch.randn(n, 1, 8, 8, generator=g) for n in (B, N))
    y, hidden = (torch.randint(CLASSES, (n,), generator=g) for n in (B, N))
    return batches.batch([x], y, unlabelled=Samples((u,), hidden, torch.arange(N)))


def step(module: Any, nets: dict[str, nn.Module], batch: Batch, **chosen: Any) -> Any:
    """Make a step backward, with the draws of a new generator; return its loss and logs."""
    row = {"weight": torch.tensor(3.0), "alpha": torch.tensor(0.75)}
    settings = module.Settings(**chosen)
    loss, logs = module.step(nets, batch, row, settings, torch.Generator().manual_seed(5))
    loss.backward()
    return loss.detach(), logs


def share(n: int, g: torch.Generator) -> Tensor:
    a, b = torch._standard_gamma(torch.full((2, n), 0.75), generator=g)
    return torch.max(a / (a + b), 1 - a / (a + b))


def mix(values: Tensor, share: Tensor) -> Tensor:
    return torch.einsum("i,i...->i...", share, values) + torch.einsum(
        "i,i...->i...", 1 - share, values.flip(0)
    )


def test_mixup_is_a_cross_entropy_of_mixtures_of_each_pool():
    batch, net = case(), network()
    before, twin, u = copy.deepcopy(net), copy.deepcopy(net), batch.unlabelled.x
    loss, logs = step(mixup_ssl, {"main": net}, batch)
    g = torch.Generator().manual_seed(5)
    of_x, of_u = share(B, g), share(N, g)
    q = F.softmax(copy.deepcopy(before)(u), 1).detach()
    x, y = mix(batch.x, of_x), mix(F.one_hot(batch.y, CLASSES).float(), of_x)
    loss_x = F.cross_entropy(twin(x), y)
    assert buffers_equal(net, twin)
    loss_u = F.cross_entropy(twin(mix(u, of_u)), mix(q, of_u))
    torch.testing.assert_close(loss, (loss_x + 3 * loss_u).detach())
    torch.testing.assert_close(logs["loss_labelled"], loss_x)
    (loss_x + 3 * loss_u).backward()
    assert_same_gradients(net, twin)
    right = (q.argmax(1) == batch.unlabelled.y).float().mean()
    assert logs["target_correct"] == right


def test_supervised_mixup_asks_for_labelled_samples_alone_and_is_its_labelled_part():
    declared, both, batch = methods.load("mixup_ssl"), network(), case()
    settings = declared.chosen({"pools": "labelled"})
    assert set(declared.streams(settings)) == {"labelled"}
    assert declared.forwards(settings, {"labelled": B}) == B
    assert declared.forwards(declared.chosen({}), {"labelled": B, "unlabelled": N}) == B + 2 * N
    assert set(mixup_ssl.ignored(settings)) == {"weight"}
    alone = batches.batch([batch.x], batch.y)
    net = network()
    loss, _ = step(mixup_ssl, {"main": net}, alone, pools="labelled")
    _, logs = step(mixup_ssl, {"main": both}, batch)
    torch.testing.assert_close(loss, logs["loss_labelled"].detach())
    assert buffers_equal(net, both)


def test_what_the_student_says_of_a_mixture_is_compared_with_the_mixture_of_the_teachers_words():
    batch, net, ema = case(), network(), frozen(network(seed=1)).train()
    twin, u = copy.deepcopy(net), batch.unlabelled.x
    loss, logs = step(ict, {"main": net, "ema": ema}, batch)
    l = share(N, torch.Generator().manual_seed(5))  # noqa: E741
    q = F.softmax(network(seed=1)(u), 1).detach()
    loss_x = F.cross_entropy(twin(batch.x), batch.y)
    assert buffers_equal(net, twin)
    loss_u = F.mse_loss(twin(mix(u, l)).softmax(1), mix(q, l))
    torch.testing.assert_close(logs["loss_consistency"], loss_u)
    torch.testing.assert_close(loss, (loss_x + 3 * loss_u).detach())
    (loss_x + 3 * loss_u).backward()
    assert_same_gradients(net, twin)
    assert all(p.grad is None for p in ema.parameters())
    # The teacher is in training mode, so that the engine can give it statistics of its own.
    assert buffers_equal(ema, seen(network(seed=1), u))
    assert ict.uses_ema(ict.Settings()) and ict.trains_ema(ict.Settings())


# MixUp's own words about unlabelled samples teach it little: a point.
@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("mixup_ssl", 0.0), ("ict", 0.02)])
def test_they_learn_more_from_four_labels_a_class_than_labels_alone(method, least):
    few: dict[str, Any] = {
        "model": "small_cnn", "model_settings": {"width": 8}, "batch": 20, "epoch_images": 400,
        "epochs": 20, "ema_decay": 0.95, "mu": 1, "lr": 0.05,
        "split": {"per_class": 4, "labels": None},
    }  # fmt: skip
    own = {"weight": {"kind": "ramp", "end": 20.0, "over": 0.4}} if method == "ict" else {}
    gains = []
    for seed in range(3):
        plain, run = (
            factory.train(factory.settings(name, seed=seed, **{**few, **more}))
            for name, more in (("supervised", {}), (method, own))
        )
        gains.append(run.final()["test_accuracy"] - plain.final()["test_accuracy"])
    assert sum(gains) / len(gains) > least, gains
