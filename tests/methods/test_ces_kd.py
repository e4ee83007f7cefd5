"""A step of CES-KD/op: who teaches whom, and what is ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories.batches import batch, made
from factories.ces_kd import EXPERTS, NAMES, B, K, N, begun, each_path, folded
from factories.replay import NoWaiting
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.engine.stream import Batch
from cyclery.engine.teachers import Teacher
from cyclery.methods import ces_kd, kd

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


class Head(nn.Module):
    """A linear network on images."""

    def __init__(self, seed: int, spread: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(16, K)
        self.linear.weight.data.mul_(spread)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def case(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(B, 1, 4, 4, generator=g), torch.randint(K, (B,), generator=g)
    return batch((x,), y, torch.randperm(N, generator=g)[:B])


def experts(count: int = EXPERTS) -> dict[str, Teacher]:
    return {f"expert-{n}": Teacher([Head(10 + n, spread=5.0)]) for n in range(1, count + 1)}


def step(
    strata: Tensor | None, given: dict[str, Any] | None = None, progress: float = 1.0, **row: float
) -> tuple[Tensor, dict[str, Tensor], nn.Module]:
    """Make one step backward; return its loss and logs, and the network with its gradient."""
    settings, net = ces_kd.Settings(**(given or {})), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, made(net, K, N))}
    if strata is not None:
        nets["curriculum"].get_buffer("strata").copy_(strata)
    values = {"temperature": 3.0, "soft": 0.7, "progress": progress, **row}
    values = {name: torch.tensor(value) for name, value in values.items()}
    loss, logs = ces_kd.step(nets, case(), values, settings, torch.Generator())
    loss.backward()
    if strata is not None:
        assert torch.equal(nets["curriculum"].get_buffer("strata"), strata)
    return loss.detach(), {name: value.detach() for name, value in logs.items()}, net


def by_kd(teacher: nn.Module) -> tuple[float, Tensor]:
    """Return the loss of plain distillation from one teacher, and its gradient."""
    net, row = Head(0), {"temperature": torch.tensor(3.0), "soft": torch.tensor(0.7)}
    nets = {"main": net, "teacher": teacher}
    loss, _ = kd.step(nets, case(), row, kd.Settings(), torch.Generator())
    loss.backward()
    return loss.item(), net.linear.weight.grad


def of_samples(net: nn.Module, expert: nn.Module, t: float = 3.0) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the divergence of each sample, by torch's own functions."""
    batch = case()
    z = net(batch.x)
    losses = F.kl_div((z / t).log_softmax(1), (expert(batch.x) / t).softmax(1), reduction="none")
    return F.cross_entropy(z, batch.y, reduction="none"), losses.sum(1) * t**2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_where_all_have_one_expert_it_is_distillation_from_that_one(number):
    loss, gradient = by_kd(experts()[f"expert-{number}"])
    strata = torch.full((N,), number - 1)
    for given, known in (
        ({"unlocking": "static"}, strata),
        ({"unlocking": "gradual"}, strata),
        ({"unlocking": "easy_first"}, strata),
        ({"assignment": "single", "expert": number}, None),
    ):
        found, logs, net = step(known, given)
        assert found.item() == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(net.linear.weight.grad, gradient, rtol=1e-5, atol=1e-7)
        assert logs["expert"] == number


def test_the_mean_of_all_is_distillation_from_an_ensemble():
    members = [teacher.members[0] for teacher in experts().values()]
    loss, gradient = by_kd(Teacher(members))
    found, _, net = step(None, {"assignment": "mean"})
    assert found.item() == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(net.linear.weight.grad, gradient, rtol=1e-5, atol=1e-7)


def test_all_is_the_mean_of_the_losses_to_every_expert():
    single = [by_kd(expert) for expert in experts().values()]
    found, _, net = step(None, {"assignment": "all"})
    assert found.item() == pytest.approx(np.mean([loss for loss, _ in single]), rel=1e-6)
    mean = torch.stack([gradient for _, gradient in single]).mean(0)
    torch.testing.assert_close(net.linear.weight.grad, mean, rtol=1e-5, atol=1e-7)


def strata_of() -> Tensor:
    """Return strata in which the batch has every one, the last of them twice."""
    strata = torch.zeros(N, dtype=torch.int64)
    strata[case().ids] = torch.tensor([2, 0, 1, 2, 0, 1, 2, 2])
    return strata


@pytest.mark.parametrize(("progress", "unlocked"), [(0.0, 1), (0.2, 2), (0.34, 3), (1.0, 3)])
@pytest.mark.parametrize("unlocking", ["gradual", "static", "easy_first"])
def test_each_sample_has_the_expert_of_its_stratum_as_far_as_it_is_unlocked(
    unlocking, progress, unlocked
):
    found, logs, net = step(strata_of(), {"unlocking": unlocking}, progress=progress)
    twin = Head(0)
    hard, _ = of_samples(twin, experts()["expert-1"])
    each = torch.stack([of_samples(twin, expert)[1] for expert in experts().values()])
    allowed = EXPERTS if unlocking == "static" else unlocked
    expected, numbers = [], []
    for place, stratum in enumerate(strata_of()[case().ids].tolist()):
        used = min(stratum, allowed - 1)
        numbers.append(used + 1)
        locked = unlocking == "easy_first" and stratum >= allowed
        soft = 0.0 if locked else 0.7
        expected.append((1 - soft) * hard[place] + soft * each[used, place])
    total = torch.stack(expected).mean()
    total.backward()
    assert found.item() == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)
    assert logs["expert"].item() == pytest.approx(np.mean(numbers))
    assert logs["loss_hard"].item() == pytest.approx(hard.mean().item(), rel=1e-5)


OTHER = {"expert": 2, "difficulty": "teacher_loss", "unlocking": "easy_first", "rho": 0.9}


@each_path
def test_what_is_ignored_changes_nothing_and_all_else_does(given):
    """Neither the parents, nor the strata, nor the loss of a step."""
    settings = ces_kd.Settings(**given)
    ignored = set(ces_kd.ignored(settings))
    assert ignored <= {*OTHER, "progress"} - set(given)
    samples = folded()
    samples.answer(NAMES[-1], 30)

    def effects(progress: float = 0.2, **changes: Any) -> list[Any]:
        chosen = {**given, **changes}
        known = settings.by_stratum
        loss, *_ = step(strata_of() if known else None, chosen, progress)
        strata = begun(samples, **chosen).tolist() if known else None
        return [float(loss), ces_kd.parents(ces_kd.Settings(**chosen)), strata]

    plain = effects()
    for name in OTHER.keys() - given.keys():
        assert (effects(**{name: OTHER[name]}) == plain) == (name in ignored), name
    assert (effects(progress=1.0) == plain) == ("progress" in ignored)


def test_what_is_not_unlocked_learns_from_its_label_alone():
    strata = torch.full((N,), 2)
    found, _, net = step(strata, {"unlocking": "easy_first"}, progress=0.0)
    twin, batch = Head(0), case()
    loss = F.cross_entropy(twin(batch.x), batch.y)
    loss.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)


def test_experts_see_the_very_tensor_of_the_student_and_get_no_gradient():
    settings, net = ces_kd.Settings(), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, made(net, K, N))}
    seen: list[Tensor] = []
    for each in (net, *experts_of(nets)):
        each.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    row = {name: torch.tensor(0.5) for name in ("temperature", "soft", "progress")}
    ces_kd.step(nets, case(), row, settings, torch.Generator())[0].backward()
    assert len(seen) == 1 + EXPERTS and all(each is seen[0] for each in seen)
    assert all(p.grad is None for each in experts_of(nets) for p in each.parameters())


def experts_of(nets: dict[str, nn.Module]) -> list[nn.Module]:
    return [nets[name] for name in NAMES]


@each_path
def test_a_step_never_waits_and_keeps_every_log_a_scalar(given):
    settings, net = ces_kd.Settings(**given), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, made(net, K, N))}
    row = {name: torch.tensor(0.5) for name in ("temperature", "soft", "progress")}
    with NoWaiting():
        loss, logs = ces_kd.step(nets, case(), row, settings, torch.Generator())
        loss.backward()
    assert set(logs) == {"loss_hard", "loss_soft", "expert"}
    assert all(value.shape == () and value.isfinite() for value in (loss, *logs.values()))
