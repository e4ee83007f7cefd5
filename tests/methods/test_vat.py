"""VAT: the direction against the Hessian, the loss against autograd, and where gradients go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories.semi_supervised import (
    B,
    K,
    N,
    assert_same_gradients,
    buffers_equal,
    image_case,
    network,
    row,
    seen,
    step,
)
from factories.threads import one_thread
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from cyclery.methods import vat

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

VALUES = {"weight": 0.7, "epsilon": 2.0, "entropy_weight": 0.3, "xi": 0.01}


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_divergence_is_that_of_the_library():
    clean, perturbed = torch.randn(2, 7, K, generator=drawn(), dtype=torch.float64)
    p, q = Categorical(logits=clean), Categorical(logits=perturbed)
    assert vat.divergence(clean, perturbed).item() == pytest.approx(kl_divergence(p, q).mean())
    reverse = vat.divergence(clean, perturbed, "reverse").item()
    assert reverse == pytest.approx(kl_divergence(q, p).mean())
    of_probabilities = F.kl_div(clean.log_softmax(1), perturbed.softmax(1), reduction="batchmean")
    assert reverse == pytest.approx(of_probabilities.item())


class Linear(nn.Module):
    """Softmax regression, whose divergence has a Hessian in closed form."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(K, pixels, generator=drawn(5)) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.t()


def regression(dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """Return softmax regression, images [6, 1, 3, 4], and Hessians [6, 12, 12] at these."""
    net = Linear(12).to(dtype)
    x = torch.randn(6, 1, 3, 4, generator=drawn(1)).to(dtype)
    w = net.weight.detach().double()
    p = net(x).detach().double().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return net, x, w.t() @ inner @ w


def cosines(one: Tensor, other: Tensor) -> Tensor:
    pairs = [F.normalize(t.flatten(1).double(), dim=1, eps=0.0) for t in (one, other)]
    return (pairs[0] * pairs[1]).sum(1)


@pytest.mark.parametrize(("dtype", "xi"), [(torch.float64, 1e-6), (torch.float32, 0.01)])
def test_an_iteration_multiplies_by_the_hessian(dtype, xi):
    net, x, hessian = regression(dtype)
    found = vat.direction(net, x, net(x).detach(), torch.tensor(xi, dtype=dtype), 1, drawn(3))
    start = torch.empty_like(x).normal_(generator=drawn(3)).flatten(1).double()
    expected = (hessian @ start[:, :, None])[..., 0]
    assert cosines(found, expected).min() > 0.999
    assert not found.requires_grad


def test_many_iterations_find_the_direction_of_the_largest_curvature():
    net, x, hessian = regression(torch.float64)
    xi = torch.tensor(1e-6, dtype=torch.float64)
    found = vat.direction(net, x, net(x).detach(), xi, 100, drawn(3))
    largest = torch.linalg.eigh(hessian).eigenvectors[:, :, -1]
    assert cosines(found, largest).abs().min() > 0.999


def test_a_unit_vector_has_length_one_however_small_the_gradient_is():
    d = torch.randn(4, 3, 5, 5, generator=drawn(), dtype=torch.float64)
    for scale in (1e-8, 1.0, 1e8):
        assert torch.allclose(vat.unit(scale * d).flatten(1).norm(dim=1), d.new_ones(4), rtol=2e-4)
    assert not vat.unit(torch.zeros(2, 1, 3, 3)).any()
    # As the code has it: 1e-12 beside the largest value, 1e-6 under the root.
    d = d / (1e-12 + d.abs().flatten(1).max(1).values[:, None, None, None])
    norm = (1e-6 + (d**2).flatten(1).sum(1)).sqrt()[:, None, None, None]
    assert torch.allclose(vat.unit(d), d / norm, rtol=1e-9)


def independent(net: nn.Module, settings: vat.Settings, batch: Any) -> tuple[Tensor, Tensor]:
    """Return the loss, with autograd's own gradient in the search, and its perturbation."""
    x, u = batch.x, batch.unlabelled.x
    if settings.forward == "joint":
        given = torch.cat([x, u])
        z = net(given)
        z_x = z[: len(x)]
    else:
        given = u
        z_x, z = net(x), net(u)
    p = Categorical(logits=z.detach())
    d = torch.randn(given.shape, generator=drawn(9))
    for _ in range(settings.iterations):
        d = (VALUES["xi"] * F.normalize(d.flatten(1), dim=1).view_as(d)).requires_grad_()
        [d] = torch.autograd.grad(kl_divergence(p, Categorical(logits=net(given + d))).sum(), d)
    r = VALUES["epsilon"] * F.normalize(d.flatten(1), dim=1, eps=0).view_as(d)
    q = Categorical(logits=net(given + r))
    both = (p, q) if settings.divergence == "forward" else (q, p)
    divergence = kl_divergence(*both).mean()
    entropy = Categorical(logits=z).entropy().mean()
    return F.cross_entropy(z_x, batch.y) + 0.7 * divergence + 0.3 * entropy, r


@pytest.mark.parametrize(
    "given",
    [{}, {"divergence": "reverse"}, {"iterations": 3}, {"forward": "joint", "statistics": "all"}],
    ids=str,
)
def test_the_loss_and_its_gradients_are_those_of_autograd(given):
    batch, net = image_case(), network()
    twin, settings = copy.deepcopy(net), vat.Settings(**given)
    loss, logs = vat.step({"main": net}, batch, row(vat, **VALUES), settings, drawn(9))
    loss.backward()
    expected, r = independent(twin, settings, batch)
    # The target and the perturbation are constants there, so this says that neither has a gradient.
    assert not r.requires_grad
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert_same_gradients(net, twin, 1e-4)
    assert logs["loss_vat"] > 0 and logs["entropy"] > 0


def test_each_switch_makes_another_loss():
    losses = []
    for given in ({}, {"divergence": "reverse"}, {"iterations": 2},
                  {"forward": "joint", "statistics": "all"}):  # fmt: skip
        loss, _ = vat.step({"main": network()}, image_case(), row(vat, **VALUES),
                           vat.Settings(**given), drawn())  # fmt: skip
        losses.append(loss.item())
    assert len(set(losses)) == 4


def test_without_a_perturbation_there_is_no_divergence_and_no_gradient_of_it():
    batch, net = image_case(), network()
    without = copy.deepcopy(net)
    _, logs = step(vat, {"main": net}, batch, epsilon=0.0, entropy_weight=0.0)
    assert logs["loss_vat"].item() == pytest.approx(0, abs=1e-6)
    F.cross_entropy(without(batch.x), batch.y).backward()
    assert_same_gradients(net, without, 1e-5)


def test_the_perturbation_is_worse_than_a_random_one():
    """Of the same length, and with the same random start."""
    net, x = network("group"), image_case().unlabelled.x
    clean = net(x).detach()
    found = vat.direction(net, x, clean, torch.tensor(0.01), 1, drawn(2))
    random = vat.unit(torch.empty_like(x).normal_(generator=drawn(2)))
    worse, usual = (vat.divergence(clean, net(x + d)).item() for d in (found, random))
    assert worse > 2 * usual


@pytest.mark.parametrize(
    ("forward", "statistics"), [("joint", "all"), ("separate", "all"), ("separate", "labelled")]
)
def test_only_clean_passes_move_running_statistics(forward, statistics):
    batch, net = image_case(), network()
    x, u = batch.x, batch.unlabelled.x
    expected = seen(net, *{"joint": [torch.cat([x, u])], "separate": [x, u]}[forward])
    if statistics == "labelled":
        expected = seen(net, x)
    step(vat, {"main": net}, batch, {"forward": forward, "statistics": statistics})
    assert buffers_equal(net, expected)
    assert vat.Settings() == vat.Settings(forward="separate", statistics="labelled")


def test_the_start_comes_from_the_runs_generator():
    settings, values = vat.Settings(), row(vat)
    losses = [
        vat.step({"main": network()}, image_case(), values, settings, drawn(seed))[1]["loss_vat"]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_the_search_is_in_float32_under_autocast(monkeypatch):
    found: list[Tensor] = []
    real = vat.direction

    def kept(*given: Any) -> Tensor:
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(vat, "direction", kept)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            vat.step({"main": network()}, image_case(), row(vat), vat.Settings(), drawn())
    assert torch.equal(*found)


def test_passes_are_counted():
    images = {"labelled": B, "unlabelled": N}
    assert vat.forwards(vat.Settings(), images) == B + 3 * N
    joint = vat.Settings(forward="joint", statistics="all", iterations=2)
    assert vat.forwards(joint, images) == 4 * (B + N)
