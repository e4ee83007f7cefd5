"""S4L: its losses against independent computations, and where gradients go."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories.semi_supervised import (
    B,
    K,
    N,
    assert_same_gradients,
    buffers_equal,
    image_case,
    network,
    seen,
)
from factories.threads import one_thread
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.engine.stream import Batch, Samples
from cyclery.methods import retraining, s4l
from cyclery.methods._rotations import averaged, rotations

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

VALUES = {"weight": 0.7, "class_weight": 0.6, "vat_weight": 0.5, "entropy_weight": 0.3,
          "epsilon": 2.0, "xi": 0.01}  # fmt: skip


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(net: nn.Module, **given: Any) -> dict[str, nn.Module]:
    """Return what a step takes: the layer of the task has the same weights each time."""
    torch.manual_seed(1)
    return {"main": net, **s4l.modules(s4l.Settings(**given), batches.made(net, K))}


def made_step(
    models: dict[str, nn.Module], batch: Batch, values: Any = None, **given: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    row = {name: torch.tensor(value) for name, value in {**VALUES, **(values or {})}.items()}
    loss, logs = s4l.step(models, batch, row, s4l.Settings(**given), drawn(9))
    loss.backward()
    return loss.detach(), {name: value.detach() for name, value in logs.items()}


def copies(count: int = 3) -> Batch:
    """Return a batch whose samples are there in so many views."""
    x, u = (torch.randn(count, n, 1, 8, 8, generator=drawn(n)) for n in (B, N))
    y = torch.randint(K, (B,), generator=drawn())
    return batches.batch(x, y, unlabelled=Samples(tuple(u), torch.zeros(N).long(), torch.arange(N)))


def alone(batch: Batch, name: str) -> Batch:
    """Return a batch of one of its streams."""
    return Batch({name: batch[name]})


# Rotations.


def test_rotations_go_counter_clockwise_from_the_upright_image() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    expected = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert rotations(x)[:, 0].tolist() == expected
    x = torch.randn(5, 3, 6, 6, generator=drawn())
    turned = np.concatenate([np.rot90(x.numpy(), k, (2, 3)) for k in range(4)])
    assert np.array_equal(rotations(x).numpy(), turned)


def test_a_rotation_is_its_own_label() -> None:
    z = torch.zeros(4, 5, 4)
    for k in range(4):
        z[k, :, k] = 50.0
    assert float(s4l.rotation_loss(z.flatten(0, 1))) < 1e-6
    assert float(s4l.rotation_loss(z.roll(1, 0).flatten(0, 1))) == pytest.approx(50.0)


def test_the_mean_over_rotations_is_that_of_logits() -> None:
    net, x = network("group"), image_case().x
    each = [net(torch.rot90(x, k, (2, 3))) for k in range(4)]
    assert torch.allclose(averaged(net, x), torch.stack(each).mean(0), atol=1e-6)


class Watched(nn.Module):
    """Keeps the images whose features it makes."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.head = net, net.head
        self.seen: list[Tensor] = []

    def features(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        found: Tensor = self.net.features(x)
        return found


def test_all_rotations_of_both_streams_are_one_pass_the_unlabelled_ones_first() -> None:
    net, batch = network(), image_case()
    watched = Watched(net)
    made_step({**networks(net), "main": watched}, batch)
    [found] = watched.seen
    both = torch.cat([rotations(batch.unlabelled.x), rotations(batch.x)])
    assert torch.equal(found, both)
    assert buffers_equal(net, seen(network(), both))


def by_hand(net: Any, task: Any, batch: Batch, rotated: bool = True) -> tuple[Tensor, Tensor]:
    """Return the class logits [T B, K] of the labelled stream, and the task's loss."""
    parts = [torch.cat([torch.rot90(v, k, (2, 3)) for k in range(4)] if rotated else each.views)
             for each in (batch.unlabelled, batch.labelled) for v in each.views[:1]]  # fmt: skip
    h = net.features(torch.cat(parts))
    losses = []
    for part, each in zip(h.split([len(p) for p in parts]), (batch.unlabelled, batch.labelled),
                          strict=True):  # fmt: skip
        z = task(part)
        losses.append(turns_loss(z) if rotated else triplets(z.view(-1, len(each.y), z.shape[1])))
    return net.head(h[len(parts[0]) :]), (losses[0] + losses[1]) / 2


def turns_loss(z: Tensor) -> Tensor:
    each = z.view(4, -1, 4).log_softmax(2)
    return -torch.stack([each[k, :, k] for k in range(4)]).mean()


def triplets(z: Tensor) -> Tensor:
    """Return the batch-hard loss of copies [M, N, D], a triplet at a time."""
    copies, images, _ = z.shape
    unit = z / z.norm(dim=2, keepdim=True)
    losses = []
    for m in range(copies):
        for n in range(images):
            d = (unit - unit[m, n]).square().sum(2).clamp(min=1e-12).sqrt()
            others = torch.arange(copies) != m
            far = d[others, n].max()
            near = d[:, torch.arange(images) != n].min()
            losses.append(F.softplus(far - near))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("task", ["rotation", "exemplar"])
def test_the_loss_and_its_gradients_are_those_of_a_loop(task: Any) -> None:
    rotated, net = task == "rotation", network()
    batch = image_case() if rotated else copies()
    given = {"task": task, "copies": 3, "embedding": 16}
    models = networks(net, **given)
    twin = copy.deepcopy(models)
    loss, logs = made_step(models, batch, **given)
    z, loss_task = by_hand(twin["main"], twin["task"], batch, rotated)
    # Every rotation, or copy, has the label of its image, whatever it is.
    loss_class = torch.stack([F.cross_entropy(each, batch.y) for each in z.split(B)]).mean()
    assert len(z) == B * (4 if rotated else 3)
    expected = 0.6 * loss_class + 0.7 * loss_task
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["loss_task"].item() == pytest.approx(loss_task.item(), rel=1e-5)
    assert logs["loss_labelled"].item() == pytest.approx(loss_class.item(), rel=1e-5)
    for name in models:
        assert_same_gradients(models[name], twin[name], 1e-5)


def test_triplets_of_the_same_copies_have_finite_gradients() -> None:
    z = torch.randn(2, 5, generator=drawn()).repeat(3, 1).requires_grad_()
    loss = s4l.triplet_loss(z, 2)
    loss.backward()
    assert z.grad is not None and z.grad.isfinite().all()
    near = (F.normalize(z[0], dim=0) - F.normalize(z[1], dim=0)).norm()
    assert loss.item() == pytest.approx(F.softplus(-near).item(), rel=1e-3)


def test_the_task_trains_its_own_layer_and_the_features_and_no_head() -> None:
    models = networks(network())
    made_step(models, image_case(), {"class_weight": 0.0})
    net: Any = models["main"]
    assert not net.head.weight.grad.any()
    assert all(p.grad.any() for p in [*models["task"].parameters(), net.body[0].weight])


# The control.


@pytest.mark.parametrize("samples", ["labelled", "both"])
def test_without_weight_it_is_supervised_training_on_four_rotations(samples: Any) -> None:
    models, batch = networks(network()), image_case()
    twin = copy.deepcopy(models["main"])
    given = batch if samples == "both" else alone(batch, "labelled")
    loss, _ = made_step(models, given, {"weight": 0.0, "class_weight": 1.0}, samples=samples)
    others = rotations(batch.unlabelled.x) if samples == "both" else batch.x[:0]
    # Of the unlabelled images there are their batch statistics, where they are there.
    z = twin(torch.cat([others, rotations(batch.x)]))[len(others) :]
    expected = F.cross_entropy(z, batch.y.repeat(4))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradients(models["main"], twin)
    assert not any(p.grad.any() for p in models["task"].parameters() if p.grad is not None)


# Virtual adversarial training and entropy.


def independent(models: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss with autograd's own gradient in the search, and the entropy."""
    net: Any = models["main"]
    u, x = rotations(batch.unlabelled.x), rotations(batch.x)
    h = net.features(torch.cat([u, x]))
    z, turns = net.head(h), models["task"](h)
    p = Categorical(logits=z[: len(u)].detach())
    d = torch.randn(u.shape, generator=drawn(9))
    d = (VALUES["xi"] * F.normalize(d.flatten(1), dim=1).view_as(d)).requires_grad_()
    [g] = torch.autograd.grad(kl_divergence(Categorical(logits=net(u + d)), p).sum(), d)
    r = VALUES["epsilon"] * F.normalize(g.flatten(1), dim=1, eps=0).view_as(d)
    loss_vat = kl_divergence(Categorical(logits=net(u + r)), p).mean()
    entropy = Categorical(logits=z[: len(u)]).entropy().mean()
    loss_task = (turns_loss(turns[: len(u)]) + turns_loss(turns[len(u) :])) / 2
    loss_class = F.cross_entropy(z[len(u) :], batch.y.repeat(4))
    loss = 0.7 * loss_task + 0.6 * loss_class + 0.5 * loss_vat + 0.3 * entropy
    return loss, entropy


def test_the_combination_and_its_gradients_are_those_of_autograd() -> None:
    """The perturbed prediction comes first in the divergence, in the search as well."""
    models, batch = networks(network()), image_case()
    twin = copy.deepcopy(models)
    loss, logs = made_step(models, batch, vat=True)
    expected, entropy = independent(twin, batch)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert logs["entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    for name in models:
        assert_same_gradients(models[name], twin[name], 1e-4)


def test_the_divergence_is_not_the_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for kind in ("reverse", "forward"):
        inner = s4l.divergence
        with monkeypatch.context() as patch:
            patch.setattr(s4l, "divergence", lambda p, q, _, k=kind, f=inner: f(p, q, k))
            found.append(made_step(networks(network()), image_case(), vat=True)[1]["loss_vat"])
    assert found[0] == made_step(networks(network()), image_case(), vat=True)[1]["loss_vat"]
    assert found[0] != found[1]


def test_passes_of_perturbed_images_leave_running_statistics_alone() -> None:
    net, batch = network(), image_case()
    expected = seen(net, torch.cat([rotations(batch.unlabelled.x), rotations(batch.x)]))
    made_step(networks(net), batch, vat=True)
    assert buffers_equal(net, expected)


def test_the_search_is_in_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Tensor] = []
    real = s4l.by_input

    def kept(*given: Any) -> Tensor:
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(s4l, "by_input", kept)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made_step(networks(network()), image_case(), vat=True)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-7)


# Streams, settings and what is counted.


def test_without_labels_the_task_alone_is_trained() -> None:
    models, batch = networks(network()), image_case()
    given: Any = {"samples": "unlabelled"}
    loss, logs = made_step(models, alone(batch, "unlabelled"), **given)
    twin: Any = network()
    z = networks(twin)["task"](twin.features(rotations(batch.unlabelled.x)))
    assert loss.item() == pytest.approx(0.7 * turns_loss(z).item(), rel=1e-5)
    assert list(logs) == ["loss_task"]
    settings = s4l.Settings(**given)
    assert not s4l.classifies(settings) and not s4l.measures(settings)
    assert models["main"].head.weight.grad is None


def test_streams_and_passes_are_counted() -> None:
    method = methods.load("s4l")

    def spent(**given: Any) -> tuple[int, int]:
        return method.spent(method.chosen(given), 10, 2)

    assert spent() == (30, 120)
    assert spent(vat=True) == (30, 120 + 2 * 80)
    assert spent(task="exemplar", copies=5) == (150, 150)
    assert spent(samples="labelled") == (10, 40)
    # The first stream makes the epoch, so there is one sample for each of the batch.
    assert spent(samples="unlabelled") == (10, 40)
    pools = {name: each.pool for name, each in
             method.streams(method.chosen({"labels": "teacher"})).items()}  # fmt: skip
    assert pools == {"labelled": "own", "unlabelled": "unlabelled"}


def test_the_weights_of_the_combination_are_those_of_the_code() -> None:
    settings = s4l.Settings()
    assert (settings.vat_weight, settings.entropy_weight) == (0.3, 0.3)
    # In proportion to the root of the number of values, of images that are twice as large.
    assert settings.epsilon == pytest.approx(2 * 40 * (32 / 224), rel=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vat": True, "task": "exemplar"}, "found exemplar and both"),
        ({"vat": True, "samples": "labelled"}, "found rotation and labelled"),
        ({"labels": "teacher", "samples": "unlabelled"}, "needs a labelled stream"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        s4l.Settings(**given)


def test_rotations_of_images_that_are_not_square_are_refused() -> None:
    made = batches.made(network(), K)
    made.shape = (1, 8, 6)
    with pytest.raises(UserError, match="8 x 6 pixels"):
        s4l.modules(s4l.Settings(), made)
    assert s4l.modules(s4l.Settings(task="exemplar"), made)
    teacher = s4l.Settings(task="exemplar", labels="teacher")
    message = r"method.predictions: rotations needs square images \(found 8 x 6 pixels\)"
    for method, settings in ((s4l, teacher), (retraining, retraining.Settings("rotations"))):
        with pytest.raises(UserError, match=message):
            method.modules(settings, made)
    assert retraining.modules(retraining.Settings(), made) == {}


def test_distances_of_triplets_are_exact_under_autocast() -> None:
    z = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = s4l.triplet_loss(z, 4)
    assert torch.equal(found, s4l.triplet_loss(z, 4))


def test_each_switch_makes_another_loss_and_what_is_ignored_none() -> None:
    def loss(batch: Batch, values: Any = None, **given: Any) -> float:
        return made_step(networks(network(), **given), batch, values, **given)[0].item()

    every = [loss(image_case()), loss(image_case(), vat=True),
             loss(alone(image_case(), "labelled"), samples="labelled"),
             loss(alone(image_case(), "unlabelled"), samples="unlabelled"),
             loss(copies(), task="exemplar"),
             loss(copies(), task="exemplar", embedding=8)]  # fmt: skip
    assert len(set(every)) == len(every)
    others = {name: 2 * VALUES[name] for name in ("vat_weight", "entropy_weight", "epsilon", "xi")}
    assert loss(image_case(), others) == every[0]
    assert {*others, "copies", "embedding", "predictions"} == {*s4l.ignored(s4l.Settings())}
