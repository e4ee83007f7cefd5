"""OLE: its penalty and sub-gradient against the library's nuclear norm and closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.semi_supervised import K, network
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.engine.failures import Diverged
from cyclery.methods import ole

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_library(x: Tensor, y: Tensor, delta: float) -> Tensor:
    norms = [torch.linalg.matrix_norm(x[y == c], "nuc") for c in y.unique()]
    bounded = [n if n > delta else n.new_tensor(delta) for n in norms]
    return torch.stack(bounded).sum() - torch.linalg.matrix_norm(x, "nuc")


def found(x: Tensor, y: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Return the penalty and its gradient by the features."""
    x = x.detach().requires_grad_()
    value = ole.penalty(x, y, delta)
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad


Y = torch.tensor([0, 3, 0, 1, 3, 0, 2, 1, 0])


# Wide and tall, and with a delta above the norms of some classes and of none.
@pytest.mark.parametrize("width", [2, 5, 30])
@pytest.mark.parametrize("delta", [0.0, 1.0, 4.0, 1e3])
def test_penalty_and_gradient_are_the_librarys(width: int, delta: float) -> None:
    x = drawn(len(Y), width)
    value, gradient = found(x, Y, delta)
    x.requires_grad_()
    expected = by_library(x, Y, delta)
    [slope] = torch.autograd.grad(expected, x)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


def test_of_one_sample_a_class_the_norm_is_the_length() -> None:
    x = drawn(3, 4)
    y = torch.arange(3)
    value, gradient = found(x, y, 0.0)
    whole = torch.linalg.svd(x, full_matrices=False)
    assert value.item() == pytest.approx(x.norm(dim=1).sum() - whole.S.sum())
    expected = F.normalize(x) - whole.U @ whole.Vh
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def test_classes_at_right_angles_cost_nothing_and_others_do() -> None:
    apart = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0) * 3
    y = torch.arange(4).repeat_interleave(2)
    value, gradient = found(apart, y, 0.0)
    assert value.item() == pytest.approx(0, abs=1e-9) and gradient.abs().max() < 1e-9
    # All the same: each class has sqrt(2) times the length, all together sqrt(8) times.
    value, _ = found(apart[:1].repeat(8, 1), y, 0.0)
    assert value.item() == pytest.approx(3 * (4 * 2**0.5 - 8**0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_that_are_zero_have_no_gradient(dtype: torch.dtype) -> None:
    """Of equal features there is one direction: U V' is x / |X| in every row."""
    x = (drawn(1, 6) * 50).to(dtype).repeat(8, 1)
    _, gradient = found(x, torch.zeros(8, dtype=torch.int64), 0.0)
    assert gradient.abs().max() < 1e-6
    two = torch.arange(8) % 2
    _, gradient = found(x, two, 0.0)
    direction = F.normalize(x)
    expected = direction * (4**-0.5 - 8**-0.5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_small_singular_values_count_from_1e_6_on() -> None:
    sizes = torch.tensor([1.0, 2e-6, 5e-7], dtype=torch.float64)
    x = torch.diag(sizes)
    _, gradient = found(x, torch.zeros(3, dtype=torch.int64), 10.0)
    torch.testing.assert_close(gradient, -torch.diag(torch.tensor([1.0, 1, 0]).double()))


def test_a_class_at_or_below_delta_is_left_alone() -> None:
    x = torch.tensor([[0.25, 0.0], [0.0, 4.0]], dtype=torch.float64)
    y = torch.tensor([0, 1])
    for delta, moves in ((0.2, True), (0.25, False), (1.0, False)):
        value, gradient = found(x, y, delta)
        # Together they have both lengths; only the class that is left alone has no counterweight.
        assert value.item() == pytest.approx(max(delta, 0.25) - 0.25)
        assert gradient.tolist() == ([[0, 0], [0, 0]] if moves else [[-1, 0], [0, 0]])


def test_features_that_are_nothing_do_no_harm() -> None:
    value, gradient = found(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 1.0)
    assert value.item() == 2 and not gradient.any()


# Of some sizes a decomposition of what is not finite fails, of others it does not.
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [3, 10, 25, 50])
def test_features_that_are_not_finite_make_no_finite_loss(batch: int, bad: float) -> None:
    x = drawn(batch, 6).float()
    x[0, 0] = bad
    assert ole.penalty(x, torch.arange(batch) % 3, 1.0).isnan()


@pytest.mark.parametrize("batch", [10, 50])
def test_a_run_whose_loss_is_not_finite_diverges(batch: int) -> None:
    with pytest.raises(Diverged):
        factory.train(factory.settings("ole", lr=1e30, batch=batch))


def stepped(net: nn.Module, weight: float, delta: float = 1.0) -> tuple[Any, Tensor, Tensor]:
    """Make a step backward, and return what it returned, and the batch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 1, 8, 8, generator=generator)
    batch = SimpleNamespace(x=x, y=Y)
    row = {"weight": torch.tensor(weight)}
    loss, logs = ole.step({"main": net}, batch, row, ole.Settings(delta=delta), generator)
    loss.backward()
    return (loss, logs), x, Y


@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_the_loss_is_that_of_the_paper(weight: float) -> None:
    """With its weight, which the public code fixes at 0.25, and with features of a network."""
    net, twin = network(), network()
    (loss, logs), x, y = stepped(net, weight)
    features = twin.features(x)
    expected = F.cross_entropy(twin.head(features), y)
    penalty = by_library(features.double(), y, 1.0) / len(y)
    assert logs["loss_class"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["loss_low_rank"].item() == pytest.approx(penalty.item(), rel=1e-4)
    whole = expected + weight * penalty
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    whole.backward()
    for (name, one), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_head_has_no_gradient_of_the_penalty() -> None:
    """Which the loss's weight scales: the public backward pass would not."""
    grads = []
    for weight in (0.0, 1.0, 2.0):
        net = network()
        stepped(net, weight, delta=0.0)
        grads.append({name: p.grad.clone() for name, p in net.named_parameters()})
    for name, plain in grads[0].items():
        once, twice = (each[name] - plain for each in grads[1:])
        assert once.any() == (not name.startswith("head")), name
        torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-5)


def test_defaults_are_the_papers() -> None:
    assert ole.Settings() == ole.Settings(weight=0.25, delta=1.0)
    assert int(Y.max()) < K
