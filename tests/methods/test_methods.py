"""Losses: the cards' known answers, special cases, independent implementations, controls."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from cyclery import methods
from cyclery.common.errors import UserError
from cyclery.methods import cyclical_focal, supervised
from cyclery.models.layers import batch_norms
from cyclery.schedules import cycle

LOGITS = [[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]]
TARGETS = [0, 2]
EPOCHS = [0, 2, 3, 10]


def row(**quantities: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in quantities.items()}


def focal_row(eta: float, hc: float, pos: float, neg: float) -> dict[str, torch.Tensor]:
    return row(eta=eta, gamma_hc=hc, gamma_pos=pos, gamma_neg=neg)


def focal(z: torch.Tensor, y: torch.Tensor, eps: float, *values: float) -> torch.Tensor:
    return cyclical_focal.focal_loss(z, y, focal_row(*values), eps)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    return z, torch.tensor(TARGETS)


class Fixed(nn.Module):
    """A network whose output is its parameter, whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def step(module, settings, given_row, logits, y):
    """Return loss, logs and the loss's gradient with respect to the logits."""
    net = Fixed(logits)
    batch = SimpleNamespace(x=torch.zeros(len(y), 1, 2, 2), y=y, ids=torch.arange(len(y)))
    loss, logs = module.step({"main": net}, batch, given_row, settings, torch.Generator())
    loss.backward()
    return loss.detach(), logs, net.logits.grad


# The card's known answers.


@pytest.mark.parametrize(
    ("gammas", "eps", "losses"),
    [
        ((3, 2, 2), 0.0, [1.834367, 0.563840, 0.352085, 1.834367]),
        ((3, 2, 2), 0.1, [1.837691, 0.555081, 0.341312, 1.837691]),
        ((2, 0, 4), 0.1, [1.306512, None, 0.640013, 1.306512]),
        ((2, 0, 4), 0.0, [1.265247, None, 0.676297, 1.265247]),
    ],
)
def test_losses_of_the_card(gammas, eps, losses):
    z, y = example()
    etas = cycle.eta(EPOCHS, 11, 4)
    assert etas == pytest.approx([1, 0.2, 0.066667, 1], abs=1e-6)
    for eta, expected in zip(etas, losses, strict=True):
        if expected is not None:
            assert focal(z, y, eps, eta, *gammas).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("eps", "expected"),
    [(0.0, [-0.375400, 0.274439, 0.100961]), (0.1, [-0.322247, 0.243283, 0.078963])],
)
def test_gradients_of_the_card(eps, expected):
    z, y = example()
    focal(z, y, eps, 1.0, 3, 2, 2).backward()
    assert z.grad[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gammas", "expected"),
    [((0, 0, 0), (0.634229, 0.717562)), ((0, 0, 4), (0.634229, 0.592406)),
     ((0, 2, 2), (0.246208, 0.234428))],
)  # fmt: skip
def test_cross_entropy_asymmetric_and_focal_loss_of_the_card(gammas, expected):
    z, y = example()
    found = [focal(z, y, eps, 0.0, *gammas).item() for eps in (0.0, 0.1)]
    assert found == pytest.approx(expected, abs=1e-6)


# Special cases and independent implementations.


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("eta", [0.0, 0.37, 1.0])
def test_all_gammas_zero_is_smoothed_cross_entropy(eta, eps):
    z, y = torch.randn(20, 7, dtype=torch.float64), torch.arange(20) % 7
    assert torch.allclose(
        focal(z, y, eps, eta, 0, 0, 0),
        F.cross_entropy(z, y, label_smoothing=eps),
        rtol=0,
        atol=1e-12,
    )


def test_two_classes_is_torchvisions_focal_loss():
    from torchvision.ops import sigmoid_focal_loss

    z, y = torch.randn(30, 2, dtype=torch.float64), torch.arange(30) % 2
    expected = sigmoid_focal_loss(z[:, 1] - z[:, 0], y.double(), -1, 2, "mean")
    assert torch.allclose(focal(z, y, 0.0, 0.0, 3, 2, 5), expected, rtol=0, atol=1e-12)


def by_hand(z, y, eta, hc, pos, neg, eps):
    """Compute the loss sample by sample and class by class."""
    total = 0.0
    for logits, target in zip(z, y, strict=True):
        largest = max(logits)
        log_sum = largest + math.log(sum(math.exp(v - largest) for v in logits))
        for k, logit in enumerate(logits):
            log_p = logit - log_sum
            p = math.exp(log_p)
            if k == target:
                weight = (1 - eta) * (1 - p) ** pos + eta * (1 + p) ** hc
            else:
                weight = (1 - eta) * p**neg + eta
            q = eps / len(logits) + (1 - eps if k == target else 0)
            total -= q * weight * log_p
    return total / len(z)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(2, 8), st.integers(0, 2**31), st.floats(0.1, 8),
    st.floats(0, 1), st.floats(0, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 1),
)  # fmt: skip
def test_equals_a_loop_over_samples_and_classes(b, k, seed, spread, eta, hc, pos, neg, eps):
    generator = np.random.default_rng(seed)
    z, y = spread * generator.normal(size=(b, k)), generator.integers(0, k, b)
    logits = torch.tensor(z, requires_grad=True)
    loss = focal(logits, torch.tensor(y), eps, eta, hc, pos, neg)
    assert loss.item() == pytest.approx(by_hand(z, y, eta, hc, pos, neg, eps), rel=1e-9, abs=1e-12)
    # The slope of the loop, so that gradients through the weights count.
    loss.backward()
    i, j, h = seed % b, seed % k, 1e-5
    up, down = z.copy(), z.copy()
    up[i, j] += h
    down[i, j] -= h
    slope = (by_hand(up, y, eta, hc, pos, neg, eps) - by_hand(down, y, eta, hc, pos, neg, eps)) / (
        2 * h
    )
    assert logits.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_gradient_flows_through_the_weights():
    z, y = example()
    focal(z, y, 0.0, 1.0, 3, 2, 2).backward()
    p = z.detach().softmax(1)
    weight = (1 + p.gather(1, y[:, None])) ** 3
    detached = weight * (p - F.one_hot(y, 3)) / 2
    assert not torch.allclose(z.grad, detached, rtol=0.05)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_saturated_outputs_have_finite_gradients(gamma):
    z = torch.tensor([[200.0, 0.0, -200.0], [-200.0, 0.0, 200.0]], requires_grad=True)
    values = dict(eta=0.5, gamma_hc=3.0, gamma_pos=gamma, gamma_neg=gamma)
    given_row = {name: torch.tensor(value) for name, value in values.items()}
    loss = cyclical_focal.focal_loss(z, torch.tensor([0, 0]), given_row, 0.1)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


# Controls.


def random_case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return 2 * torch.randn(16, 10, generator=generator), torch.arange(16) % 10


def float_row(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_scale_matched_control_has_the_focal_losss_gradient_norm(eta):
    z, y = random_case()
    given_row = float_row(eta=eta, gamma_hc=3.0, gamma_pos=2.0, gamma_neg=2.0)
    _, _, focal_gradient = step(cyclical_focal, cyclical_focal.Settings(), given_row, z, y)
    matched = cyclical_focal.Settings(control="scale_matched")
    _, logs, gradient = step(cyclical_focal, matched, given_row, z, y)
    assert gradient.norm() == pytest.approx(focal_gradient.norm().item(), rel=1e-5)
    plain = z.clone().requires_grad_()
    F.cross_entropy(plain, y, label_smoothing=0.1).backward()
    assert torch.allclose(gradient, logs["scale"] * plain.grad, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(gradient, focal_gradient, rtol=0.01)


def test_mean_weight_control_divides_by_the_mean_weight_of_the_targets():
    z, y = random_case()
    given_row = float_row(eta=0.4, gamma_hc=3.0, gamma_pos=2.0, gamma_neg=2.0)
    loss, _, gradient = step(cyclical_focal, cyclical_focal.Settings(), given_row, z, y)
    divided, _, scaled = step(
        cyclical_focal, cyclical_focal.Settings(control="mean_weight"), given_row, z, y
    )
    p = z.softmax(1).gather(1, y[:, None])
    mean = (0.6 * (1 - p) ** 2 + 0.4 * (1 + p) ** 3).mean()
    assert divided.item() == pytest.approx((loss / mean).item(), rel=1e-5)
    assert torch.allclose(scaled, gradient / mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_supervised_is_cross_entropy_of_the_logits_over_the_temperature(temperature, eps):
    z, y = random_case()
    given_row = float_row(temperature=temperature)
    settings = supervised.Settings(label_smoothing=eps)
    loss, _, gradient = step(supervised, settings, given_row, z, y)
    expected = z.clone().requires_grad_()
    F.cross_entropy(expected / temperature, y, label_smoothing=eps).backward()
    assert torch.allclose(loss, F.cross_entropy(z / temperature, y, label_smoothing=eps), atol=1e-6)
    assert torch.allclose(gradient, expected.grad, rtol=1e-5, atol=1e-7)


# All methods alike.


@pytest.mark.parametrize("name", methods.names())
def test_a_method_declares_what_the_engine_needs(name):
    method = methods.load(name)
    assert method.version >= 1
    assert method.title
    assert method.settings_type() == method.settings_type()
    run = factory.run(factory.settings(name))
    run.begin_epoch()
    before = run.flat.data.clone()
    run.step(50)
    assert run.trace(0, 1).shape == (1, len(run.logged))
    assert run.logged[0] == "loss"
    assert np.isfinite(run.trace(0, 1)).all()
    assert not torch.equal(before, run.flat.data)


def test_an_unknown_method_is_named_with_its_nearest():
    with pytest.raises(UserError, match="'supervised'"):
        methods.load("supervise")


# Running statistics.

TAUGHT = {
    "kd": [{}, {"hard": 0.0}, {"inputs": "unlabelled"}, {"inputs": "both"},
           {"inputs": "both", "mixup": 1.0, "hard": 0.0}, {"targets": "permuted"}],
    "ces_kd": [{}, {"assignment": "single"}, {"assignment": "mean"}, {"assignment": "all"}],
    "soteacher": [{}, {"penalty": "l1"}, {"penalty": "l1_matched"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given"), [(name, given) for name, all_ in TAUGHT.items() for given in all_], ids=str
)
def test_an_update_moves_running_statistics_once_and_those_of_parents_never(name, given):
    """By the one pass in training mode; nor do evaluations, or what is done before training."""
    run = factory.run(
        factory.settings(name, model="small_cnn", lr=0.0, epochs=2, method_settings=given)
    )
    net = run.models["main"]
    norms = batch_norms(net)
    assert {int(norm.num_batches_tracked) for norm in norms} == {0}
    passes: list[torch.Tensor] = []
    hook = norms[0].register_forward_pre_hook(lambda _, args: passes.append(args[0].detach()))
    run.begin_epoch()
    run.step(50)
    hook.remove()
    assert len(passes) == 1 and net.training
    seen = {"unlabelled": 3, "both": 3}.get(given.get("inputs", ""), 1) * 50
    assert len(passes[0]) == seen
    # The first norm starts at mean 0; labelled and unlabelled images of a pass count alike.
    expected = 0.1 * passes[0].mean((0, 2, 3))
    torch.testing.assert_close(norms[0].running_mean, expected, rtol=1e-4, atol=1e-6)
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}
    moved = [norm.running_var.clone() for norm in norms]
    for part in ("validation", "test", "train"):
        run.evaluate(part)
    run.final()
    assert all(torch.equal(norm.running_var, var) for norm, var in zip(norms, moved, strict=True))
    for update in range(1, run.updates):
        if update % run.table.steps[0] == 0:
            run.begin_epoch()
        run.step(50)
    assert {int(norm.num_batches_tracked) for norm in norms} == {run.updates}
    for key, teacher in run.networks.teachers.items():
        [trained] = run.parents[key]
        for each, value in teacher.parts["main"].state_dict().items():
            assert torch.equal(value, trained.weights[each]), (key, each)
