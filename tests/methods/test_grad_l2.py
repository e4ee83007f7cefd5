"""Gradient penalty: second derivatives against differences, and what its second pass leaves."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.differences import by_differences
from factories.semi_supervised import K, buffers_equal, network, seen
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.methods import grad_l2

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


class Smooth(nn.Module):
    """A small network without kinks, float64."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle = nn.BatchNorm1d(5) if norm else nn.Identity()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), middle, nn.Tanh()).double()
        self.head = nn.Linear(5, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x))
        return found


# A step makes float32 of logits, so that networks may compute in bfloat16.
@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def batch(count: int = 7, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    shape = shape or (1, 2, 2)
    x = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return SimpleNamespace(x=x, y=torch.randint(3, (count,), generator=generator))


def step(net: nn.Module, given: Any, weight: float = 3.0, **settings: Any) -> Any:
    row = {"weight": torch.tensor(weight, dtype=torch.float64)}
    chosen = grad_l2.Settings(**settings)
    return grad_l2.step({"main": net}, given, row, chosen, torch.Generator())


@pytest.mark.usefixtures("_double")
def test_the_penalty_is_the_mean_of_squared_gradients_and_is_trained_through() -> None:
    net, given = Smooth(), batch()

    def penalty() -> Tensor:
        found: Tensor = step(net, given)[1]["penalty"]
        return found

    each = []
    for image, label in zip(given.x, given.y, strict=True):

        def loss(pixels: Tensor = image, label: Tensor = label) -> Tensor:
            return F.cross_entropy(net(pixels[None]), label[None])

        each.append(by_differences(loss, [image]).square().sum())
    assert float(penalty().detach()) == pytest.approx(float(torch.stack(each).mean()), rel=1e-6)
    # The last bias moves no gradient by the pixels alone, but through the probabilities.
    parameters = list(net.parameters())
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(penalty(), parameters)])
    torch.testing.assert_close(exact, by_differences(penalty, parameters), atol=1e-7, rtol=1e-5)


@pytest.mark.usefixtures("_double")
def test_a_linear_network_has_a_closed_form() -> None:
    """The gradient of image i is W' (p_i - e_i)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    given = batch()
    loss, logs = step(net, given, weight=0.5)
    z = net(given.x)
    slopes = (z.softmax(1) - torch.eye(3, dtype=torch.float64)[given.y]) @ net[1].weight
    penalty = slopes.square().sum(1).mean()
    assert logs["penalty"].item() == pytest.approx(penalty.item())
    expected = F.cross_entropy(z, given.y) + 0.5 * penalty
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.usefixtures("_double")
def test_under_batch_norm_it_is_the_gradient_of_all_losses() -> None:
    net, given = Smooth(norm=True), batch()
    logs = step(net, given)[1]
    x = given.x.clone().requires_grad_()
    [slopes] = torch.autograd.grad(F.cross_entropy(net(x), given.y, reduction="sum"), x)
    expected = slopes.flatten(1).square().sum(1).mean()
    assert logs["penalty"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("statistics", ["once", "twice"])
def test_running_statistics_move_as_often_as_is_set(statistics: str) -> None:
    net, generator = network(), torch.Generator().manual_seed(1)
    x = torch.randn(7, 1, 8, 8, generator=generator)
    given = SimpleNamespace(x=x, y=torch.randint(K, (7,), generator=generator))
    passes = {"once": seen(net, x), "twice": seen(net, x, x)}
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    grads = []
    for weight in (0.01, 0.0):
        one = copy.deepcopy(net)
        loss, _ = step(one, given, weight, statistics=statistics)
        loss.backward()
        for buffers, twin in passes.items():
            # How many batches there were is not read under a momentum.
            for norm in (m for m in (*one.modules(), *twin.modules()) if hasattr(m, "momentum")):
                norm.num_batches_tracked.zero_()  # type: ignore[union-attr]
            assert buffers_equal(one, twin) == (buffers == statistics)
        assert [m.momentum for m in one.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
        grads.append([p.grad.clone() for p in one.parameters()])
    assert momenta and all(m == 0.1 for m in momenta)
    assert any(not torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_without_weight_it_is_cross_entropy() -> None:
    net, generator = network(), torch.Generator().manual_seed(1)
    x = torch.randn(7, 1, 8, 8, generator=generator)
    given = SimpleNamespace(x=x, y=torch.randint(K, (7,), generator=generator))
    twin = copy.deepcopy(net)
    loss, logs = step(net, given, 0.0)
    loss.backward()
    F.cross_entropy(twin(x), given.y).backward()
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert logs["penalty"].item() > 0
    assert not x.requires_grad


def test_defaults_are_the_benchmarks() -> None:
    assert grad_l2.Settings() == grad_l2.Settings(weight=0.01, statistics="once")
    assert grad_l2.forwards(grad_l2.Settings(), {"labelled": 5}) == 10
