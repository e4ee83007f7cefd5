"""MixMatch: its step against the paper's formulas, its switches, and easy digits."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories import engine as factory
from factories.replay import NoWaiting
from factories.semi_supervised import assert_same_gradients, buffers_equal, frozen, network, seen
from torch import Tensor, nn

from cyclery import methods, schedules
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import mixmatch

B, K, CLASSES = 7, 2, 4
ROW = {"weight": 3.0, "alpha": 0.75, "temperature": 0.5}


def case(views: int = K, seed: int = 0) -> Batch:
    """Return a batch of random images, as many unlabelled as labelled, in their views."""
    g = torch.Generator().manual_seed(seed)
    x, *u = torch.randn(1 + views, B, 1, 8, 8, generator=g)
    y, hidden = torch.randint(CLASSES, (2, B), generator=g)
    return batches.batch([x], y, unlabelled=Samples(tuple(u), hidden, torch.arange(B)))


def step(
    nets: dict[str, nn.Module], batch: Batch, row: dict[str, float] | None = None, **chosen: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make a step backward, with the draws of a new generator, and return its loss and logs."""
    rows = {name: torch.tensor(value) for name, value in {**ROW, **(row or {})}.items()}
    settings = mixmatch.Settings(**chosen)
    loss, logs = mixmatch.step(nets, batch, rows, settings, torch.Generator().manual_seed(5))
    loss.backward()
    return loss.detach(), logs


def shuffled(mixing: str, n: int, total: int, g: torch.Generator) -> Tensor:
    """Return the partner of each of the pool, with the draws that the step makes."""
    if mixing == "all":
        return torch.rand(total, generator=g).argsort()
    other = torch.arange(total)
    if mixing in ("labelled", "within"):
        other[:n] = torch.rand(n, generator=g).argsort()
    if mixing in ("unlabelled", "within"):
        other[n:] = n + torch.rand(total - n, generator=g).argsort()
    return other


def in_batches(net: nn.Module, x: Tensor, interleave: bool) -> Tensor:
    """Return logits of each batch of B apart; groups change places as in Google's code."""
    ends = [B * i // (len(x) // B) for i in range(1, len(x) // B)] if interleave else []
    parts = [list(part.tensor_split(ends)) for part in x.split(B)]

    def swap(of: list[list[Tensor]]) -> None:
        for i in range(1, len(of)):
            if interleave:
                of[0][i], of[i][i] = of[i][i], of[0][i]

    swap(parts)
    z = [list(copy.deepcopy(net)(torch.cat(part)).tensor_split(ends)) for part in parts]
    swap(z)
    return torch.cat([torch.cat(part) for part in z])


@pytest.mark.parametrize("mixing", ["none", "labelled", "unlabelled", "within", "all"])
@pytest.mark.parametrize(("views", "interleave"), [(1, True), (2, True), (2, False)])
def test_the_loss_is_that_of_the_papers_equations(mixing, views, interleave):
    batch, net = case(views), network()
    before, u = copy.deepcopy(net), batch.unlabelled.views
    chosen = {"views": views, "interleave": interleave, "mixing": mixing}
    loss, logs = step({"main": net}, batch, **chosen)
    with torch.no_grad():
        p = sum(F.softmax(copy.deepcopy(before)(view), 1) for view in u) / views
        q = p**2 / (p**2).sum(1, keepdim=True)
    g, total = torch.Generator().manual_seed(5), B * (1 + views)
    x = torch.cat([batch.x, *u])
    y = torch.cat([F.one_hot(batch.y, CLASSES).float(), *[q] * views])
    if mixing != "none":
        a, b = torch._standard_gamma(torch.full((2, total), 0.75), generator=g)
        share = torch.max(a / (a + b), 1 - a / (a + b))
        other = shuffled(mixing, B, total, g)
        x = torch.einsum("i,i...->i...", share, x) + torch.einsum(
            "i,i...->i...", 1 - share, x[other]
        )
        y = share[:, None] * y + (1 - share[:, None]) * y[other]
    twin = copy.deepcopy(before)
    z = in_batches(twin, x, interleave)
    loss_x = F.cross_entropy(z[:B], y[:B])
    loss_u = F.mse_loss(z[B:].softmax(1), y[B:])
    torch.testing.assert_close(logs["loss_labelled"], loss_x)
    torch.testing.assert_close(logs["loss_unlabelled"], loss_u)
    torch.testing.assert_close(loss, (loss_x + 3 * loss_u).detach())
    assert logs["target_correct"].item() == pytest.approx(
        np.mean(q.argmax(1).numpy() == batch.unlabelled.y.numpy())
    )


def test_the_gradient_takes_guesses_for_constants():
    batch, net = case(), network("group")
    guess = copy.deepcopy(net)
    step({"main": net}, batch, mixing="none")
    plain = copy.deepcopy(guess)
    with torch.no_grad():
        p = sum(F.softmax(guess(view), 1) for view in batch.unlabelled.views) / K
        q = p**2 / (p**2).sum(1, keepdim=True)
    loss = F.cross_entropy(plain(batch.x), batch.y)
    for view in batch.unlabelled.views:
        loss = loss + 3 * F.mse_loss(plain(view).softmax(1), q) / K
    loss.backward()
    assert_same_gradients(net, plain)


def test_without_weight_and_mixing_the_gradient_is_that_of_supervised_training():
    batch, net, plain = case(), network("group"), network("group")
    step({"main": net}, batch, {"weight": 0.0}, mixing="none")
    F.cross_entropy(plain(batch.x), batch.y).backward()
    assert_same_gradients(net, plain)


def mixture(batch: Batch, net: nn.Module, **chosen: Any) -> list[Tensor]:
    """Return what passes the network at a step, in its order: guesses first, then the mixture."""
    passed: list[Tensor] = []
    hook = net.register_forward_pre_hook(lambda _, given: passed.append(given[0].detach().clone()))
    step({"main": net}, batch, **chosen)
    hook.remove()
    return passed


def test_running_statistics_are_those_of_the_first_mixed_pass_or_of_every_pass():
    before = network()
    for statistics, counted in (("first", slice(K, K + 1)), ("all", slice(None))):
        net = copy.deepcopy(before)
        passed = mixture(case(), net, statistics=statistics)
        assert len(passed) == 2 * K + 1
        assert buffers_equal(net, seen(before, *passed[counted]))
        assert not buffers_equal(net, before)


def test_an_interleaved_first_pass_has_unlabelled_images_and_else_none():
    batch = case()
    known = {interleave: mixture(batch, network(), interleave=interleave, mixing="none")[K]
             for interleave in (True, False)}  # fmt: skip
    assert torch.equal(known[False], batch.x)
    own = [bool((batch.x == image).flatten(1).all(1).any()) for image in known[True]]
    assert own == [True, True] + [False] * 5


def test_guesses_are_those_of_the_averaged_network_with_the_statistics_of_the_batch():
    batch, net, ema = case(), network(), frozen(network(seed=1)).train()
    q = mixmatch.guesses(
        {"main": net, "ema": ema}, batch.unlabelled.views, {"temperature": torch.tensor(0.5)},
        mixmatch.Settings(labels_from="ema_train"),
    )  # fmt: skip
    p = sum(F.softmax(network(seed=1)(view), 1) for view in batch.unlabelled.views) / K
    torch.testing.assert_close(q, (p**2 / (p**2).sum(1, keepdim=True)).detach())
    step({"main": net, "ema": ema}, batch, labels_from="ema_train")
    assert all(p.grad is None for p in ema.parameters())
    settings = mixmatch.Settings(labels_from="ema_train")
    assert mixmatch.uses_ema(settings) and mixmatch.trains_ema(settings)
    assert not mixmatch.uses_ema(mixmatch.Settings())


@pytest.mark.parametrize(
    "chosen",
    [{"views": 1}, {"mixing": "none"}, {"mixing": "labelled"}, {"mixing": "unlabelled"},
     {"mixing": "within"}, {"share": "batch"}, {"interleave": False}, {"labels_from": "ema_train"}],
    ids=str,
)  # fmt: skip
def test_every_switch_changes_the_gradient(chosen):
    found = []
    for given in ({}, chosen):
        net = network()
        batch = case(given.get("views", K))
        step({"main": net, "ema": frozen(network(seed=1)).train()}, batch, **given)
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert (found[0] - found[1]).norm() > 0.02 * found[0].norm()


@pytest.mark.parametrize("row", [{"temperature": 1.0}, {"alpha": 0.25}, {"weight": 1.0}], ids=str)
def test_every_quantity_changes_the_loss(row):
    found = [step({"main": network()}, case(), given)[0].item() for given in ({}, row)]
    assert abs(found[0] - found[1]) > 1e-4


def test_the_default_ramp_is_the_codes_on_cifar():
    clock, _ = schedules.clock_for(np.full(64, 20), 400)
    weight = schedules.column(mixmatch.Settings().weight, clock)
    # The weight of update k is 75 min(1, k / (K / 64)).
    np.testing.assert_allclose(weight[:30], 75 * np.minimum(1, np.arange(30) / 20), rtol=1e-6)
    assert weight[-1] == 75


def test_its_passes_are_counted_and_its_idle_settings_named():
    declared = methods.load("mixmatch")
    settings = declared.chosen({"views": 3})
    # 7 labelled images, three views of 7 others; these pass once more to be guessed.
    assert declared.forwards(settings, {"labelled": 7, "unlabelled": 21}) == 49
    assert set(mixmatch.ignored(mixmatch.Settings(mixing="none"))) == {"alpha", "share"}
    assert mixmatch.ignored(mixmatch.Settings()) == {}


FEW: dict[str, Any] = {
    "model": "small_cnn", "model_settings": {"width": 8}, "batch": 20, "epoch_images": 200,
    "ema_decay": 0.9, "mu": 1, "split": {"per_class": 4, "labels": None, "test": 200},
}  # fmt: skip


def test_the_accuracy_by_batch_statistics_is_that_of_passes_in_training_mode():
    run = factory.train(factory.settings("mixmatch", epochs=2, **FEW))
    net, data = copy.deepcopy(run.models["ema"]), run.data
    buffers = [buffer.clone() for buffer in run.models["ema"].buffers()]
    modes = [module.training for module in run.models["ema"].modules()]
    final = run.final()
    ids = run.ids["test"]
    x = run.evaluator._plain(data.images[ids])
    with torch.no_grad():
        right = net.train()(x).argmax(1) == data.labels[ids]
    assert final["test_batch_statistics_accuracy"] == pytest.approx(right.float().mean().item())
    assert final["test_batch_statistics_accuracy"] != final["test_accuracy"]
    for one, other in zip(buffers, run.models["ema"].buffers(), strict=True):
        assert torch.equal(one, other)
    assert [module.training for module in run.models["ema"].modules()] == modes


def test_it_learns_more_from_four_labels_a_class_than_labels_alone():
    accuracy: dict[str, list[float]] = {"mixmatch": [], "supervised": []}
    ramp = {"kind": "ramp", "end": 30, "over": 0.5}
    for method, found in accuracy.items():
        weight = {"weight": ramp} if method == "mixmatch" else {}
        for seed in range(3):
            given = factory.settings(method, epochs=20, seed=seed, **{**FEW, **weight})
            found.append(factory.train(given).evaluate("test")["accuracy"])
    gains = np.subtract(accuracy["mixmatch"], accuracy["supervised"])
    assert gains.mean() > 0.05 and gains.min() > 0, accuracy


@pytest.mark.parametrize(
    "chosen", [{}, {"share": "batch", "mixing": "within", "views": 3}], ids=str
)
def test_a_step_never_waits_for_the_device(chosen):
    batch, net, settings = case(chosen.get("views", K)), network(), mixmatch.Settings(**chosen)
    row = {name: torch.tensor(value) for name, value in ROW.items()}
    with NoWaiting():
        loss, logs = mixmatch.step({"main": net}, batch, row, settings, torch.Generator())
        loss.backward()
    assert all(value.shape == () and value.isfinite() for value in (loss, *logs.values()))


def test_half_precision_gives_the_gradients_of_full_precision():
    """The guesses pass first, without a graph: no cast of the weights may remain of that."""
    found = []
    for half in (False, True):
        net = network()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            step({"main": net}, case())
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()
