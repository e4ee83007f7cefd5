"""Knowledge distillation: every form of the loss, frozen teachers, what both networks see."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.replay import NoWaiting, Recorder
from scipy import stats
from torch import Tensor, nn

from cyclery import methods, models, schedules
from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.engine.stream import Batch, Samples
from cyclery.engine.teachers import Teacher, Trained
from cyclery.methods import kd

B, MU, K = 6, 2, 5
N = MU * B
FORMS = list(product(("kl", "cross_entropy"), ("batchmean", "mean"), (True, False)))
each_form = pytest.mark.parametrize(("form", "reduction", "squared"), FORMS)
# Every path through the step.
PATHS: dict[str, dict[str, Any]] = {
    "benchmark": {},
    "own weight of the labels": {"hard": 0.3},
    "no labels": {"hard": 0.0},
    "cross-entropy, as TAKD divides": {"form": "cross_entropy", "reduction": "mean"},
    "without T^2": {"squared": False},
    "permuted": {"targets": "permuted"},
    "permuted, no labels": {"targets": "permuted", "hard": 0.0},
    "unlabelled": {"inputs": "unlabelled"},
    "unlabelled alone": {"inputs": "unlabelled", "hard": 0.0},
    "both": {"inputs": "both"},
    "both, no labels": {"inputs": "both", "hard": 0.0},
    "mixup": {"mixup": 1.0, "hard": 0.0},
    "mixup of both": {"mixup": 0.4, "hard": 0.0, "inputs": "both"},
    "mixup of the unlabelled": {"mixup": 1.0, "hard": 0.0, "inputs": "unlabelled"},
}
each_path = pytest.mark.parametrize("given", PATHS.values(), ids=PATHS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for their threads
    yield
    torch.set_num_threads(before)


def logits(seed: int, rows: int = B, spread: float = 3.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, K, generator=g, dtype=torch.float64)


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def soft(student: Tensor, answer: Tensor, t: float, **given: Any) -> Tensor:
    """Return the mean soft loss of logits and a teacher's answer, which are float64."""
    settings = kd.Settings(**given)
    return kd.soft_losses(student, (answer / t).softmax(1), double(t), settings).mean()


# The soft loss.


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # it is what is meant
@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
@each_form
def test_every_form_is_torchs_in_float64(form, reduction, squared, t):
    student, answer = logits(0).requires_grad_(), logits(1)
    found = soft(student, answer, t, form=form, reduction=reduction, squared=squared)
    twin = student.detach().clone().requires_grad_()
    target = (answer / t).softmax(1)
    if form == "kl":
        expected = F.kl_div((twin / t).log_softmax(1), target, reduction=reduction)
    else:
        expected = F.cross_entropy(twin / t, target) / (K if reduction == "mean" else 1)
    expected = expected * t**2 if squared else expected
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    found.backward()
    expected.backward()
    torch.testing.assert_close(student.grad, twin.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_the_loss_of_each_sample_is_its_own(t):
    student, answer = logits(0), logits(1)
    target = (answer / t).softmax(1)
    found = kd.soft_losses(student, target, double(t), kd.Settings())
    expected = F.kl_div((student / t).log_softmax(1), target, reduction="none").sum(1) * t**2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    alone = [kd.soft_losses(student[i : i + 1], target[i : i + 1], double(t), kd.Settings())
             for i in range(B)]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("form", ["kl", "cross_entropy"])
def test_the_mean_is_exactly_as_many_times_smaller_as_there_are_classes(form):
    per_sample = [
        soft(logits(0), logits(1), 4.0, form=form, reduction=reduction).item()
        for reduction in ("batchmean", "mean")
    ]
    assert per_sample[0] == pytest.approx(K * per_sample[1], rel=1e-14)


@pytest.mark.parametrize("t", [1.0, 2.0, 10.0])
def test_cross_entropy_is_divergence_and_the_teachers_entropy_with_the_same_gradient(t):
    student, twin, answer = logits(0).requires_grad_(), logits(0).requires_grad_(), logits(1)
    kl, ce = soft(student, answer, t), soft(twin, answer, t, form="cross_entropy")
    entropy = torch.distributions.Categorical(logits=answer / t).entropy().mean()
    torch.testing.assert_close(ce, kl + t**2 * entropy, rtol=1e-12, atol=0)
    kl.backward()
    ce.backward()
    torch.testing.assert_close(student.grad, twin.grad, rtol=1e-12, atol=1e-15)
    # The divergence alone ends at 0.
    assert soft(answer, answer, t).item() == pytest.approx(0.0, abs=1e-12)
    assert soft(answer, answer, t, form="cross_entropy") > 0


def test_at_a_high_temperature_it_is_the_squared_difference_of_centred_logits():
    student, answer = logits(0), logits(1)
    difference = (student - student.mean(1, True)) - (answer - answer.mean(1, True))
    limit = difference.square().sum(1).mean() / (2 * K)
    error = [abs(soft(student, answer, t) - limit) / limit for t in (10.0, 100.0, 1000.0)]
    assert error[1] < 0.02 and error[2] < 0.002
    assert error[0] > error[1] > error[2]


def test_only_the_square_keeps_the_gradients_scale_over_temperatures():
    norms: dict[bool, list[float]] = {}
    for squared in (True, False):
        for t in (4.0, 8.0, 16.0, 32.0):
            student = logits(0, spread=1.0).requires_grad_()
            soft(student, logits(1, spread=1.0), t, squared=squared).backward()
            norms.setdefault(squared, []).append(student.grad.norm().item())
    assert max(norms[True]) < 2 * min(norms[True])
    assert norms[False] == pytest.approx(
        [norm / t**2 for norm, t in zip(norms[True], (4, 8, 16, 32), strict=True)]
    )


@each_form
def test_a_teacher_that_is_sure_gives_finite_gradients(form, reduction, squared):
    student = logits(0).float().requires_grad_()
    target = (1e4 * logits(1).float()).softmax(1)
    assert (target == 0).any()
    settings = kd.Settings(form=form, reduction=reduction, squared=squared)
    loss = kd.soft_losses(student, target, torch.tensor(4.0), settings).mean()
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_the_defaults_are_the_benchmarks():
    method = methods.load("kd")
    assert kd.Settings() == kd.Settings(
        temperature=4.0, soft=0.9, hard=None, form="kl", reduction="batchmean", squared=True,
        targets="teacher", inputs="labelled", mixup=None,
    )  # fmt: skip
    assert method.quantities == ("temperature", "soft") and method.capture
    assert method.parents(kd.Settings()) == ("teacher",)
    assert not method.uses_ema(kd.Settings())


def test_settings_that_exclude_each_other_are_refused():
    for hard in (None, 0.5):
        with pytest.raises(UserError, match=rf"^mixup: .* set hard: 0 \(found {hard}\)"):
            kd.Settings(mixup=1.0, hard=hard)
    for inputs in ("unlabelled", "both"):
        with pytest.raises(UserError, match=rf"^targets: permuted needs .* \(found {inputs}\)"):
            kd.Settings(targets="permuted", inputs=inputs)
    with pytest.raises(UserError, match=r"^targets: permuted .* a mixture has two; drop mixup"):
        kd.Settings(targets="permuted", mixup=1.0, hard=0.0)


@pytest.mark.parametrize("inputs", ["labelled", "unlabelled", "both"])
def test_it_asks_for_the_streams_that_it_learns_from(inputs):
    found = kd.streams(kd.Settings(inputs=inputs))
    assert found.pop("labelled") == ("weak",)
    assert found == ({} if inputs == "labelled" else {"unlabelled": ("weak",)})


# A step.


def network(norm: str = "batch", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build("small_cnn", {"width": 4, "norm": norm}, (1, 8, 8), K)


def case(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, u = torch.randn(B, 1, 8, 8, generator=g), torch.randn(N, 1, 8, 8, generator=g)
    y, hidden = torch.randint(K, (B,), generator=g), torch.randint(K, (N,), generator=g)
    return Batch((x,), y, torch.arange(B), Samples((u,), hidden, torch.arange(N)))


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


def watch(net: nn.Module) -> list[Tensor]:
    """Note what a network is called with."""
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


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


# Whole runs.


@cache
def taught_by(model: str, seed: int = 5) -> Trained:
    """Return a network that is trained a little: its statistics are not those of a new one."""
    return factory.trained(factory.train(factory.settings(model=model, seed=seed, epochs=1)))


def settings(given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return factory.settings("kd", method_settings=given or {}, **changes)


def ensemble() -> dict[str, list[Trained]]:
    # With dropout, and with statistics of maps and of vectors.
    return {"teacher": [taught_by("wrn"), taught_by("bn_mlp")]}


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_a_teacher_is_frozen_through_a_whole_run():
    run = factory.run(settings(epochs=2, ema_decay=0.9, model="small_cnn"), parents=ensemble())
    teacher = run.models["teacher"]
    before = copy.deepcopy(teacher.state_dict())
    modes: list[tuple[bool, bool]] = []
    for module in teacher.members.modules():
        module.register_forward_pre_hook(
            lambda m, _: modes.append((m.training, torch.is_grad_enabled()))
        )
    factory.finish(run)
    run.final()
    assert set(modes) == {(False, False)}
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert teacher.state_dict().keys() == before.keys()
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Each member is what was trained, to the last bit.
    for member, parent in zip(teacher.members, ensemble()["teacher"], strict=True):
        for name, value in member.state_dict().items():
            assert torch.equal(value, parent.weights[name]), name


def test_a_teacher_is_neither_trained_nor_averaged_nor_kept():
    run = factory.train(settings(epochs=1, ema_decay=0.9, optimiser="adam", lr=0.01),
                        parents=ensemble())  # fmt: skip
    plain = factory.train(factory.settings(epochs=1, ema_decay=0.9, optimiser="adam", lr=0.01))
    teacher = run.models["teacher"]
    frozen = {storage(value) for value in teacher.state_dict().values()}
    live = [*run.networks.tensors().values(), *run._tensors().values(), run.flat.grad]
    assert not frozen & {storage(tensor) for tensor in live}
    assert not frozen & {storage(p) for p in run.models["ema"].parameters()}
    assert set(run.models) == {"main", "ema", "teacher"}
    assert set(run.networks.models) == {"main", "ema"}
    # What is kept and saved is as of a run without a teacher.
    assert len(run.flat) == len(plain.flat)
    assert run.networks.tensors().keys() == plain.networks.tensors().keys()
    assert run.state().keys() == plain.state().keys()
    assert run.weights().keys() == plain.weights().keys()


@pytest.mark.parametrize("given", [{}, {"mixup": 1.0, "hard": 0.0}, {"inputs": "both"}])
def test_both_networks_see_the_same_augmented_tensor_in_a_run(given):
    run = factory.run(settings(given, epochs=1, augment=({"op": "shift", "size": 1},)))
    students, teachers = watch(run.models["main"]), watch(run.models["teacher"])
    run.train_epoch()
    assert len(students) == len(teachers) == 4
    assert all(a is b for a, b in zip(students, teachers, strict=True))
    assert len({id(seen) for seen in students}) == 4


def test_a_method_that_draws_more_sees_the_same_samples_in_the_same_views():
    seen = []
    for given in ({}, {"mixup": 1.0, "hard": 0.0}, {"targets": "permuted"}):
        run, batches = factory.run(settings(given, epochs=2)), []
        made = run._batch
        run._batch = lambda *a, made=made, batches=batches: batches.append(made(*a)) or batches[-1]
        factory.finish(run)
        seen.append(batches)
    for batches in seen[1:]:
        for one, other in zip(seen[0], batches, strict=True):
            assert torch.equal(one.ids, other.ids) and torch.equal(one.x, other.x)


@pytest.mark.parametrize("hard", [None, 0.25])
def test_a_cycle_of_guidance_reaches_the_step_by_its_row(monkeypatch, hard):
    cycle = factory.cycle(1.0, 0.2)
    given = settings({"hard": hard}, epochs=6, soft=cycle,
                     temperature={"kind": "linear", "start": 2.0, "end": 6.0})  # fmt: skip
    rows: list[tuple[float, float]] = []
    losses: list[tuple[float, float, float]] = []
    declared = methods.load("kd")

    def step(models, batch, row, chosen, generator):
        loss, logs = declared.step(models, batch, row, chosen, generator)
        rows.append((row["soft"].item(), row["temperature"].item()))
        losses.append((loss.item(), logs["loss_hard"].item(), logs["loss_soft"].item()))
        return loss, logs

    monkeypatch.setattr(methods, "load", lambda name: replace(declared, step=step))
    run = factory.train(given)
    clock = run.table.clock
    expected = schedules.column(schedules.normalise(cycle), clock)
    assert [row[0] for row in rows] == pytest.approx(expected.tolist(), rel=1e-6)
    assert len(set(expected.tolist())) > 3 and expected[0] == expected.max()
    assert [row[1] for row in rows] == pytest.approx((2 + 4 * clock.t / clock.updates).tolist())
    for (weight, _), (loss, first, second) in zip(rows, losses, strict=True):
        own = 1 - weight if hard is None else hard
        assert loss == pytest.approx(own * first + weight * second, rel=1e-5)


def test_without_guidance_it_is_supervised_to_the_last_bit():
    plain, off = factory.train(factory.settings()), factory.train(settings(soft=0.0))
    assert torch.equal(plain.flat.data, off.flat.data)
    on = factory.train(settings(soft=0.5))
    assert not torch.equal(plain.flat.data, on.flat.data)


def varied(given: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return settings in which both quantities, and all of the engine's, follow schedules."""
    return factory.everything(
        "kd", method_settings=given, epochs=4, temperature=factory.cycle(8.0, 2.0),
        soft=factory.cycle(1.0, 0.3), **changes,
    )  # fmt: skip


def assert_same(one: Run, other: Run) -> None:
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert one.curve == other.curve


@each_path
def test_a_replayed_run_equals_an_eager_one(given):
    eager = factory.train(varied(given), parents=ensemble())
    recorder = Recorder()
    replayed = factory.train(varied(given), parents=ensemble(), recorder=recorder)
    assert_same(eager, replayed)
    assert recorder.replays and not recorder.refused
    assert eager.final() == replayed.final()


@each_path
def test_a_resumed_run_equals_one_that_was_not_interrupted(given):
    whole, half = (factory.run(varied(given), parents=ensemble()) for _ in range(2))
    factory.finish(whole)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    rest = factory.run(varied(given), parents=ensemble())
    rest.load_state(half.state(), 2, {key: list(values) for key, values in half.curve.items()})
    factory.finish(rest)
    assert_same(whole, rest)


def test_a_student_without_labels_copies_its_teacher():
    parent = factory.trained(factory.train(factory.settings(epochs=20)))
    runs = [
        factory.train(
            settings({"hard": 0.0, **given}, epochs=20, soft=1.0, lr=0.02, model="bn_mlp",
                     **{"split": {"unlabelled": "all"}} if given else {}),
            parents={"teacher": [parent]},
        )
        for given in ({}, {"inputs": "both"}, {"targets": "permuted"})
    ]  # fmt: skip
    plain, more, permuted = (run.final()["test_agreement"] for run in runs)
    assert plain > 0.8 and more > plain - 0.02
    assert permuted < plain
