"""Cosine loss: against the library's cosine, and its head where cross-entropy is added."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories import engine as factory
from factories.semi_supervised import Table
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.methods import cosine_loss

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

CLASSES, COUNT = 5, 12


def case(weight: float) -> tuple[Any, dict[str, nn.Module], Tensor, Tensor]:
    """Return a step's loss and logs, its networks, and logits and labels."""
    generator = torch.Generator().manual_seed(3)
    z = 2 * torch.randn(COUNT, CLASSES, generator=generator)
    y = torch.randint(CLASSES, (COUNT,), generator=generator)
    net, settings = Table(z), cosine_loss.Settings(weight=weight)
    torch.manual_seed(0)
    own = cosine_loss.modules(settings, batches.made(net, CLASSES))
    models = {"main": net, **own}
    batch = SimpleNamespace(x=torch.arange(float(COUNT))[:, None, None, None], y=y)
    found = cosine_loss.step(models, batch, {}, settings, torch.Generator())
    return found, models, z, y


def test_alone_it_is_one_minus_the_librarys_cosine() -> None:
    (loss, logs), models, z, y = case(0.0)
    assert models.keys() == {"main"} and logs.keys() == {"loss_cosine"}
    z.requires_grad_()
    expected = (1 - F.cosine_similarity(z, F.one_hot(y, CLASSES).float())).mean()
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    [gradient] = torch.autograd.grad(expected, z)
    torch.testing.assert_close(models["main"].logits.grad, gradient, rtol=1e-4, atol=1e-7)
    # It is blind to lengths: the gradient has no part along an answer.
    assert (gradient * z).sum(1).abs().max() < 1e-6


@pytest.mark.parametrize(("angle", "expected"), [(0.0, 0.0), (90.0, 1.0), (180.0, 2.0)])
def test_right_and_opposite_answers(angle: float, expected: float) -> None:
    turned = torch.deg2rad(torch.tensor(angle))
    net = Table(7 * torch.stack([turned.cos(), turned.sin()])[None])
    batch = SimpleNamespace(x=torch.zeros(1, 1, 1, 1), y=torch.tensor([0]))
    loss, _ = cosine_loss.step({"main": net}, batch, {}, cosine_loss.Settings(), torch.Generator())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight", [0.1, 2.0])
def test_with_cross_entropy_a_head_of_its_own_is_trained(weight: float) -> None:
    (loss, logs), models, z, y = case(weight)
    relu, norm, linear = models["classifier"].children()
    assert isinstance(relu, nn.ReLU) and linear.weight.shape == (CLASSES, CLASSES)
    u = z / z.square().sum(1, keepdim=True).sqrt()
    v = u.clamp(min=0)
    v = (v - v.mean(0)) / (v.var(0, unbiased=False) + norm.eps).sqrt()
    logits = v @ linear.weight.T + linear.bias
    cosine = 1 - u[range(COUNT), y]
    each = cosine + weight * (logits.exp().sum(1).log() - logits[range(COUNT), y])
    assert loss.item() == pytest.approx(each.mean().item(), rel=1e-5)
    assert logs["loss_cosine"].item() == pytest.approx(cosine.mean().item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in linear.parameters())
    assert models["main"].logits.grad.any()


def test_what_classifies_is_the_head_where_there_is_one() -> None:
    settings = factory.settings("cosine_loss", method_settings={"weight": 0.5}, epochs=4)
    run = factory.train(settings)
    run.models["main"].eval(), run.models["classifier"].eval()
    x = factory.data().images[:64].float()
    with torch.no_grad():
        found = cosine_loss.predict(run.models, x, cosine_loss.Settings(weight=0.5))
        expected = run.models["classifier"](F.normalize(run.models["main"](x)))
        alone = cosine_loss.predict(run.models, x, cosine_loss.Settings())
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(alone, run.models["main"](x))
    assert "classifier" not in factory.run(factory.settings("cosine_loss")).models
