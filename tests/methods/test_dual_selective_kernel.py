"""The losses of DSK-Net, the added layer, and centres with an optimiser of their own."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from factories.network import DIGITS, small
from torch import Tensor, nn

from cyclery import methods
from cyclery.methods import dual_selective_kernel as dsk


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def models(weight: float = 0.5) -> tuple[dict[str, nn.Module], dsk.Settings]:
    net = small("small_cnn")
    settings = dsk.Settings(centre_weight=weight)
    made = SimpleNamespace(net=net, width=net.width, classes=10)
    return {"main": net, **dsk.modules(settings, made)}, settings


def batch(count: int = 12) -> SimpleNamespace:
    x = torch.randn(count, *DIGITS, generator=torch.Generator().manual_seed(1))
    return SimpleNamespace(x=x, y=torch.arange(count) % 7, ids=torch.arange(count))


ROW = {"centre_rate": torch.tensor(0.5)}


def test_positive_class_and_cosine_by_hand() -> None:
    z, y = torch.tensor([[3.0, 4.0], [0.0, -1.0]]).double(), torch.tensor([0, 1])
    positive, cosine = dsk.positive_and_cosine(z, y)
    expected = (math.log1p(math.exp(-3)) + math.log1p(math.exp(1))) / 2
    assert positive.item() == pytest.approx(expected, rel=1e-12)
    assert cosine.item() == pytest.approx(((1 - 3 / 5) + (1 + 1)) / 2, rel=1e-12)


def test_the_losses_of_logits_are_those_of_torch() -> None:
    z, y = drawn(20, 5), torch.arange(20) % 5
    positive, cosine = dsk.positive_and_cosine(z, y)
    own = z[torch.arange(20), y]
    expected = F.binary_cross_entropy_with_logits(own, torch.ones_like(own))
    torch.testing.assert_close(positive, expected)
    expected = (1 - F.cosine_similarity(z, F.one_hot(y, 5).double())).mean()
    torch.testing.assert_close(cosine, expected)


def test_centres_get_the_gradient_of_autograd_and_features_theirs() -> None:
    f, y = drawn(9, 4).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 4, 4, 4])
    centres = drawn(6, 4, seed=2).requires_grad_()
    loss, gradient = dsk.centre_loss(f, y, centres.detach())
    expected = (2 - 2 * F.cosine_similarity(f, centres[y])).mean()
    torch.testing.assert_close(loss, expected)
    by_f, by_centres = torch.autograd.grad(expected, (f, centres))
    torch.testing.assert_close(gradient, by_centres)
    torch.testing.assert_close(torch.autograd.grad(loss, f)[0], by_f)
    # Classes that are not there stay where they are.
    assert not gradient[[3, 5]].any() and gradient[[0, 1, 2, 4]].any(1).all()


def test_a_step_is_that_of_two_optimisers() -> None:
    """The benchmark's: SGD for centres beside another, its gradient without the weight."""
    found, settings = models()
    data = batch()
    net, projector = found["main"], found["projector"]
    start = found["centres"].get_buffer("centres").clone()
    loss, logs = dsk.step(found, data, ROW, settings, torch.Generator())
    centres = nn.Parameter(start.clone())
    optimiser = torch.optim.SGD([centres], lr=0.5)
    f = projector(net.features(data.x))
    z = net.head(f)
    own = z[torch.arange(len(z)), data.y]
    distance = (2 - 2 * F.cosine_similarity(f, centres[data.y])).mean()
    cosine = (1 - own / z.norm(dim=1)).mean()
    total = -F.logsigmoid(own).mean() + cosine + 0.5 * distance
    torch.testing.assert_close(loss, total)
    parts = [logs[name].item() for name in ("loss_positive", "loss_cosine", "loss_centre")]
    assert parts == pytest.approx([-F.logsigmoid(own).mean().item(), cosine.item(),
                                   distance.item()], rel=1e-5)  # fmt: skip
    total.backward()
    assert centres.grad is not None
    centres.grad /= 0.5
    optimiser.step()
    moved = found["centres"].get_buffer("centres")
    torch.testing.assert_close(moved, centres.detach())
    assert not torch.equal(moved, start) and torch.equal(moved[7:], start[7:])


def test_gradients_reach_network_layer_and_head_and_centres_are_no_parameters() -> None:
    found, settings = models()
    dsk.step(found, batch(), ROW, settings, torch.Generator())[0].backward()
    for name in ("main", "projector"):
        assert all(p.grad is not None and p.grad.any() for p in found[name].parameters()), name
    assert list(found["centres"].parameters()) == []
    assert dsk.keeps(settings) == ("projector",)


def test_what_is_evaluated_passes_the_added_layer() -> None:
    found, settings = models()
    net, x = found["main"].eval(), batch().x
    vectors = dsk.features(found, x, settings)
    torch.testing.assert_close(vectors["z"], found["projector"](net.features(x)))
    assert torch.equal(vectors["features"], net.features(x))
    assert torch.equal(dsk.predict(found, x, settings), net.head(vectors["z"]))
    assert not torch.equal(dsk.predict(found, x, settings), net(x))


def test_without_centres_there_is_no_added_layer() -> None:
    found, settings = models(0.0)
    assert found.keys() == {"main"} and dsk.keeps(settings) == ()
    loss, logs = dsk.step(found, batch(), ROW, settings, torch.Generator())
    z = found["main"](batch().x)
    torch.testing.assert_close(loss, sum(dsk.positive_and_cosine(z, batch().y)))
    assert logs.keys() == {"loss_positive", "loss_cosine"}
    assert torch.equal(dsk.predict(found, batch().x, settings), z)
    assert set(dsk.features(found, batch().x, settings)) == {"features"}
    method = methods.load("dual_selective_kernel")
    assert method.ignored(settings) == {"centre_rate": "centre_weight: 0"}
    assert method.ignored(dsk.Settings()) == {}


def test_a_centre_that_stands_still() -> None:
    found, settings = models()
    start = found["centres"].get_buffer("centres").clone()
    dsk.step(found, batch(), {"centre_rate": torch.tensor(0.0)}, settings, torch.Generator())
    assert torch.equal(found["centres"].get_buffer("centres"), start)
