"""A step of distillation: frozen teachers, ensembles, mixtures, permuted targets."""

from __future__ import annotations

import copy
import math
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.batches import batch
from factories.kd import B, K, N, double, each_path, watch
from factories.replay import NoWaiting
from factories.threads import one_thread
from scipy import stats
from torch import Tensor, nn

from cyclery import models
from cyclery.engine.stream import Batch, Samples
from cyclery.engine.teachers import Teacher
from cyclery.methods import kd

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


# A step.


def network(norm: str = "batch", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build("small_cnn", {"width": 4, "norm": norm}, (1, 8, 8), K)


def case(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, u = torch.randn(B, 1, 8, 8, generator=g), torch.randn(N, 1, 8, 8, generator=g)
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    return batch((x,), y, unlabelled=Samples((u,), hidden, torch.arange(N)))


def sharp(seed: int) -> nn.Module:
    """Return a network that is sure of what it says, so that its temperature matters."""
    net = network(seed=seed)
    net.head.weight.data.mul_(8)
    # Statistics that are not those of a new network, as of one that is trained.
    with torch.no_grad():
        net(torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return net


def step(
    net: nn.Module,
    teacher: nn.Module,
    given: dict[str, Any] | None = None,
    batch: Batch | None = None,
    seed: int = 3,
    **row: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make one step backward and return its loss and logs."""
    values = {name: torch.tensor(v) for name, v in {"temperature": 4.0, "soft": 0.9, **row}.items()}
    generator = torch.Generator().manual_seed(seed)
    loss, logs = kd.step(
        {"main": net, "teacher": teacher}, batch or case(), values, kd.Settings(**(given or {})),
        generator,
    )  # fmt: skip
    loss.backward()
    return loss.detach(), {name: value.detach() for name, value in logs.items()}


def gradient(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def kl(student: Tensor, answer: Tensor, t: float) -> Tensor:
    target = (answer / t).softmax(1)
    return F.kl_div((student / t).log_softmax(1), target, reduction="batchmean") * t**2


@pytest.mark.parametrize(("hard", "soft_"), [(None, 0.9), (None, 0.0), (None, 1.0), (None, 2.5),
                                             (0.5, 0.9), (0.0, 0.3), (1.0, 2.5)])  # fmt: skip
def test_the_weights_of_the_two_parts(hard, soft_):
    net, twin, teacher = network("group"), network("group"), Teacher([sharp(1)])
    batch = case()
    loss, logs = step(net, teacher, {"hard": hard}, soft=soft_, temperature=2.0)
    z, answer = twin(batch.x), teacher(batch.x)
    # Labels are never learnt backwards.
    weight = max(1 - soft_, 0) if hard is None else hard
    parts = F.cross_entropy(z, batch.y), kl(z, answer, 2.0)
    (weight * parts[0] + soft_ * parts[1]).backward()
    assert loss.item() == pytest.approx((weight * parts[0] + soft_ * parts[1]).item(), rel=1e-5)
    torch.testing.assert_close(gradient(net), gradient(twin), rtol=1e-4, atol=1e-6)
    assert logs["loss_hard"].item() == pytest.approx(0 if hard == 0 else parts[0].item(), rel=1e-5)
    assert logs["loss_soft"].item() == pytest.approx(parts[1].item(), rel=1e-5)
    same = (z.argmax(1) == answer.argmax(1)).float().mean()
    assert logs["agreement"] == same


@pytest.mark.parametrize("hard", [0.4, 0.0])
@pytest.mark.parametrize("inputs", ["labelled", "unlabelled", "both"])
def test_the_teacher_labels_the_samples_that_it_is_asked_to(inputs, hard):
    """In one joint pass of the student, whose statistics are of all samples in it."""
    net, twin, teacher, batch = network(), network(), Teacher([sharp(1)]), case()
    loss, _ = step(net, teacher, {"inputs": inputs, "hard": hard}, soft=0.7)
    x, u = batch.x, batch.unlabelled.x
    taught = {"labelled": x, "unlabelled": u, "both": torch.cat([x, u])}[inputs]
    alone = inputs == "unlabelled" and hard == 0
    seen = {"labelled": x, "unlabelled": u if alone else torch.cat([x, u]),
            "both": torch.cat([x, u])}[inputs]  # fmt: skip
    z = twin(seen)
    expected = 0.7 * kl(z[len(seen) - len(taught) :], teacher(taught), 4.0)
    if hard:
        expected = expected + hard * F.cross_entropy(z[:B], batch.y)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient(net), gradient(twin), rtol=1e-4, atol=1e-6)
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, dict(twin.named_buffers())[name]), name


@each_path
def test_student_and_teacher_see_the_very_same_tensor(given):
    net, members = network(), [sharp(1), sharp(2)]
    teacher = Teacher(members)
    students, teachers, each = watch(net), watch(teacher), [watch(m) for m in members]
    step(net, teacher, given)
    [student], [taught] = students, teachers
    if given.get("inputs") == "unlabelled" and given.get("hard") != 0:
        # The labelled samples are in front in the student's pass.
        assert torch.equal(student[B:], taught)
        assert torch.equal(student[:B], case().x)
    else:
        assert student is taught
    assert all(seen[0] is taught and len(seen) == 1 for seen in each)


@each_path
def test_a_teacher_has_no_gradient_and_keeps_its_mode_and_its_buffers(given):
    members = [sharp(1), sharp(2)]
    teacher = Teacher(members)
    before = copy.deepcopy(teacher.state_dict())
    net = network()
    net.train()
    loss, _ = step(net, teacher, given)
    assert loss.requires_grad is False and gradient(net).any()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    teacher.train()
    teacher.train(True)
    assert not any(module.training for module in teacher.modules())
    assert net.training
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not teacher(case().x.requires_grad_()).requires_grad


def test_the_answer_of_an_ensemble_is_the_mean_of_its_members_probabilities():
    members = [sharp(seed) for seed in range(5)]
    teacher, x = Teacher(members), case().x
    z = torch.stack([member(x) for member in members])  # in evaluation mode by now
    answer = teacher(x)
    card = z.log_softmax(-1).logsumexp(0) - math.log(5)
    torch.testing.assert_close(answer, card, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(answer.exp(), z.softmax(-1).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(B))
    # Not the mean of the logits.
    assert not torch.allclose(answer.exp(), z.mean(0).softmax(-1), atol=1e-2)
    alone = Teacher(members[:1])(x)
    torch.testing.assert_close(alone, z[0].log_softmax(-1))
    twice = Teacher([members[0], members[0]])(x)
    torch.testing.assert_close(twice, alone, rtol=1e-5, atol=1e-6)


def test_the_temperature_comes_after_the_mean():
    members = [sharp(seed) for seed in (1, 2, 3)]
    net, teacher, x = network("group"), Teacher(members), case().x
    _, logs = step(net, teacher, {"hard": 0.0}, soft=1.0, temperature=5.0)
    z, s = torch.stack([member(x) for member in members]), net(x).detach()
    after = (z.softmax(-1).mean(0).log() / 5).softmax(-1)
    before = (z / 5).softmax(-1).mean(0)
    divergences = [
        25 * F.kl_div((s / 5).log_softmax(1), target, reduction="batchmean").item()
        for target in (after, before)
    ]
    assert logs["loss_soft"].item() == pytest.approx(divergences[0], rel=1e-4)
    assert divergences[1] != pytest.approx(divergences[0], rel=1e-2)


@each_path
def test_a_step_never_waits_and_keeps_every_log_a_scalar(given):
    teacher, values = Teacher([sharp(1), sharp(2)]), {"temperature": double(2.0).float(),
                                                     "soft": double(0.5).float()}  # fmt: skip
    nets = {"main": network(), "teacher": teacher}
    with NoWaiting():
        loss, logs = kd.step(nets, case(), values, kd.Settings(**given), torch.Generator())
        loss.backward()
    assert set(logs) == {"loss_hard", "loss_soft", "agreement"}
    assert all(value.shape == () and value.isfinite() for value in (loss, *logs.values()))


@each_path
def test_half_precision_gives_the_gradients_of_full_precision(given):
    found = []
    for half in (False, True):
        net, teacher = network(), Teacher([sharp(1), sharp(2)])
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            assert teacher(case().x).dtype == torch.float32
            values = {"temperature": torch.tensor(2.0), "soft": torch.tensor(0.5)}
            loss, _ = kd.step(
                {"main": net, "teacher": teacher}, case(), values, kd.Settings(**given),
                torch.Generator().manual_seed(1),
            )  # fmt: skip
        assert loss.dtype == torch.float32
        loss.backward()
        found.append(gradient(net))
    assert F.cosine_similarity(*found, dim=0) > 0.98
    assert found[1].norm() == pytest.approx(found[0].norm().item(), rel=0.1)


# Mixtures.


def shares(a: float, draws: int, size: int = 8) -> tuple[list[float], set[tuple[int, ...]]]:
    """Return the share of every draw and the orders, read off mixtures of unit vectors."""
    generator = torch.Generator().manual_seed(0)
    found, orders = [], set()
    for _ in range(draws):
        out = kd.mixed(torch.eye(size), a, generator)
        assert torch.allclose(out.sum(1), torch.ones(size)) and (out >= 0).all()
        rest = out - torch.diag(out.diagonal())
        moved = rest.sum(1) > 0
        order = torch.where(moved, rest.argmax(1), torch.arange(size))
        assert sorted(order.tolist()) == list(range(size))
        own = out.diagonal()[moved]
        if len(own):
            # One share for all.
            assert torch.allclose(own, own[0].expand_as(own), atol=1e-6)
            found.append(own[0].item())
            orders.add(tuple(order.tolist()))
    return found, orders


@pytest.mark.parametrize("a", [0.3, 1.0, 4.0])
def test_a_batch_is_mixed_with_another_order_of_itself_by_one_share_of_beta(a):
    found, orders = shares(a, 600)
    assert min(found) >= 0 and max(found) <= 1
    assert len(orders) > 550
    assert stats.kstest(found, stats.beta(a, a).cdf).pvalue > 0.01


def test_a_mixture_is_that_of_the_generator_alone():
    x = case().x
    one, same, other = (kd.mixed(x, 1.0, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    torch.manual_seed(9)
    again = kd.mixed(x, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(one, same) and torch.equal(one, again)
    assert not torch.equal(one, other) and not torch.equal(one, x)


def test_the_teacher_labels_the_mixture():
    net, twin, teacher, batch = network(), network(), Teacher([sharp(1)]), case()
    _, logs = step(net, teacher, {"mixup": 1.0, "hard": 0.0}, soft=1.0, seed=5)
    mixture = kd.mixed(batch.x, 1.0, torch.Generator().manual_seed(5))
    expected = kl(twin(mixture), teacher(mixture), 4.0)
    assert logs["loss_soft"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["loss_hard"] == 0
    other = kl(twin(mixture), teacher(batch.x), 4.0)
    assert other.item() != pytest.approx(expected.item(), rel=1e-3)


# The control of permuted targets.


def test_permuted_targets_keep_the_right_class_and_all_probabilities():
    g = torch.Generator().manual_seed(0)
    target = (3 * torch.randn(200, K, generator=g)).softmax(1)
    y = torch.randint(K, (200,), generator=g)
    found = kd.permuted(target, y, torch.Generator().manual_seed(1))
    rows = torch.arange(200)
    assert torch.equal(found[rows, y], target[rows, y])
    assert torch.equal(found.sort(1).values, target.sort(1).values)
    changed = (found != target).any(1).double().mean()
    # One of 4! orders is the same.
    assert abs(changed - 23 / 24) < 0.06
    assert torch.equal(found, kd.permuted(target, y, torch.Generator().manual_seed(1)))
    assert not torch.equal(found, kd.permuted(target, y, torch.Generator().manual_seed(2)))


def test_every_order_of_the_wrong_classes_is_as_likely():
    target = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(6000, 4)
    found = kd.permuted(target, torch.full((6000,), 2), torch.Generator().manual_seed(0))
    orders = [tuple(row) for row in found[:, [0, 1, 3]].tolist()]
    kinds = list(permutations(target[0, [0, 1, 3]].tolist()))
    counts = [orders.count(kind) for kind in kinds]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_student_learns_the_permuted_targets():
    net, twin, teacher, batch = network(), network(), Teacher([sharp(1)]), case()
    _, logs = step(net, teacher, {"targets": "permuted", "hard": 0.0}, soft=1.0, seed=5)
    plain = (teacher(batch.x) / 4).softmax(1)
    target = kd.permuted(plain, batch.y, torch.Generator().manual_seed(5))
    z = twin(batch.x) / 4
    divergences = [
        16 * F.kl_div(z.log_softmax(1), each, reduction="batchmean").item()
        for each in (target, plain)
    ]
    assert logs["loss_soft"].item() == pytest.approx(divergences[0], rel=1e-5)
    assert divergences[1] != pytest.approx(divergences[0], rel=1e-3)
