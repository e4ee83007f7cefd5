"""Deep reference priors: the loss by an independent computation, its gradient, its controls."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from factories.semi_supervised import B, N, Table, image_case, network, table_case
from factories.threads import one_thread
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.engine.stream import Batch
from cyclery.methods import deep_reference_priors as drp
from cyclery.methods import fixmatch

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

ROW = {"alpha": 0.3, "tau": 1 / 3, "threshold": 0.6}


def tables(particles: int, seed: int = 0) -> tuple[Batch, dict[str, Table], dict[str, slice]]:
    """Return a batch, particles that answer it from a table each, and where its views lie."""
    batch, _, rows = table_case(seed)
    names = ["main", *(f"particle_{k}" for k in range(2, particles + 1))]
    nets = {n: Table(table_case(seed + 10 * k)[1]) for k, n in enumerate(names)}
    return batch, nets, rows


def step(batch: Batch, nets: Any, row: Json | None = None, **chosen: Any) -> Any:
    """Step back and return loss and logs as numbers."""
    settings = drp.Settings(particles=len(nets), **chosen)
    given = {name: torch.tensor(value) for name, value in {**ROW, **(row or {})}.items()}
    loss, logs = drp.step(nets, batch, given, settings, torch.Generator())
    for net in nets.values():
        net.zero_grad()
    loss.backward()
    return loss.item(), {name: value.item() for name, value in logs.items()}


def predictions(nets: dict[str, Table], rows: dict[str, slice], part: str) -> np.ndarray:
    """Return the probabilities [K, N, C] of a view, in float64."""
    z = np.stack([net.logits.detach().double().numpy()[rows[part]] for net in nets.values()])
    e = np.exp(z)
    return np.asarray(e / e.sum(2, keepdims=True))


def joint_entropies(p: np.ndarray, order: int) -> list[float]:
    """Return, by torch's own entropy, that of the answers to each image and its partners."""
    size, found = p.shape[1] // order, []
    for b in range(size):
        mixture = 0.0
        for own in p:
            joint = own[b]
            for part in range(1, order):
                joint = np.multiply.outer(joint, own[b + part * size])
            mixture = mixture + joint.flatten() / len(p)
        found.append(torch.distributions.Categorical(torch.tensor(mixture)).entropy().item())
    return found


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("logarithm", "tau"), [("jensen", 1 / 3), ("exact", 0.4), ("jensen", 0.0)])
def test_the_loss_is_the_one_of_the_code(order: int, logarithm: str, tau: float) -> None:
    batch, nets, rows = tables(3)
    loss, logs = step(batch, nets, {"tau": tau}, order=order, logarithm=logarithm)
    x, weak, strong = (predictions(nets, rows, part) for part in ("x", "u1", "u2"))
    y = batch.y.tolist()
    labelled = -np.mean([math.log(own[b, y[b]]) for own in x for b in range(B)])
    total, used = 0.0, 0
    for p, s in zip(weak, strong, strict=True):
        for b in range(N):
            both = tau * p[b] + (1 - tau) * s[b]
            logs_of_both = tau * np.log(p[b]) + (1 - tau) * np.log(s[b])
            if p[b].max() >= 0.6:
                used += 1
                total -= both @ (np.log(both) if logarithm == "exact" else logs_of_both)
    assert 0 < used < 3 * N
    h_yw, h_y = total / (3 * N), np.mean(joint_entropies(weak, order)) / order
    assert logs["h_yw"] == pytest.approx(h_yw, rel=1e-5)
    assert logs["h_y"] == pytest.approx(h_y, rel=1e-5)
    assert logs["mask_rate"] == pytest.approx(used / (3 * N))
    assert loss == pytest.approx(labelled + (h_yw - 0.3 * h_y) / (1 - tau**2), rel=1e-5)
    own = -(weak * np.log(weak)).sum(2)[:, : N // order * order].mean()
    assert logs["information"] == pytest.approx(h_y - own, abs=1e-5)


def test_gradients_flow_where_they_should() -> None:
    """Those of the weak views are those of H_y alone, for H_yw takes these views as they are."""
    batch, nets, rows = tables(3)
    found = {}
    for alpha in (0.0, 0.3):
        step(batch, nets, {"alpha": alpha})
        found[alpha] = [net.logits.grad.clone() for net in nets.values()]  # type: ignore[union-attr]
    weak = torch.stack([net.logits.detach()[rows["u1"]] for net in nets.values()])
    asked = weak.clone().requires_grad_(True)
    p, size = asked.softmax(2), N // 2
    mixed = torch.einsum("kbc,kbd->bcd", p[:, :size], p[:, size : 2 * size]) / 3
    entropy = torch.distributions.Categorical(mixed.flatten(1)).entropy().mean() / 2
    [wanted] = torch.autograd.grad(-0.3 * 1.125 * entropy, [asked])
    sure = weak.softmax(2).amax(2) >= 0.6
    for k in range(3):
        without, with_it = found[0.0][k], found[0.3][k]
        assert not without[rows["u1"]].any() and not without[rows["x2"]].any()
        torch.testing.assert_close(with_it[rows["u1"]], wanted[k], rtol=1e-4, atol=1e-8)
        assert with_it[rows["u1"]].abs().sum() > 0 and not with_it[rows["u1"]][2 * size :].any()
        assert torch.equal(with_it[rows["u2"]], without[rows["u2"]])
        # A particle learns from the strong view of what it is sure of itself, whatever others are.
        assert torch.equal(without[rows["u2"]].abs().sum(1) > 0, sure[k])
    assert not torch.equal(sure[0], sure[1])


def test_the_surrogate_is_at_least_the_entropy_and_has_four_terms() -> None:
    g = torch.Generator().manual_seed(1)
    log_w, log_s = (3 * torch.randn(4, 50, 10, generator=g, dtype=torch.double) for _ in "ws")
    log_w, log_s = log_w.log_softmax(2), log_s.log_softmax(2)
    t = torch.tensor(1 / 3, dtype=torch.double)
    h = drp.mixture_costs(log_w, log_s, t, exact=False)
    p, s = log_w.exp(), log_s.exp()
    true = torch.distributions.Categorical(t * p + (1 - t) * s).entropy()
    assert (h >= true).all() and (h - true).max() > 0.1
    torch.testing.assert_close(drp.mixture_costs(log_w, log_s, t, exact=True), true)

    def cross(a: Tensor, log_b: Tensor) -> Tensor:
        return -(a * log_b).sum(2)

    terms = t**2 * cross(p, log_w) + (1 - t) ** 2 * cross(s, log_s)
    terms = terms + t * (1 - t) * (cross(p, log_s) + cross(s, log_w))
    torch.testing.assert_close(h, terms)


def test_probabilities_of_zero_leave_the_gradient_finite() -> None:
    for logarithm in ("jensen", "exact"):
        batch, nets, _ = tables(2)
        for net in nets.values():
            net.logits.data *= 200
        loss, _ = step(batch, nets, logarithm=logarithm)
        assert math.isfinite(loss)
        assert all(net.logits.grad.isfinite().all() for net in nets.values())  # type: ignore[union-attr]


def test_one_particle_tells_nothing_and_two_that_differ_a_bit() -> None:
    p = torch.softmax(torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(2)), 2)
    for order in (1, 2, 3):
        joint, own = drp.entropies(p, order)
        assert joint.item() == pytest.approx(own.item(), abs=1e-5)
    torch.testing.assert_close(drp.entropies(p, 1)[0], torch.special.entr(p).sum(2).mean())
    apart = torch.eye(5)[torch.tensor([[0] * 4, [1] * 4])]
    for order in (1, 2, 4):
        joint, own = drp.entropies(apart, order)
        assert own.item() == pytest.approx(0, abs=1e-6)
        assert joint.item() == pytest.approx(math.log(2) / order, abs=1e-6)


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.order: must be at most 3, .*\(found 4\)"):
        drp.entropies(torch.full((2, 3, 4), 0.25), 4)
    with pytest.raises(UserError, match=r"tau"):
        read(drp.Settings, {"tau": 1.0}, "method")


def test_each_particle_has_one_pass_over_all_views() -> None:
    """Batch statistics are those of all its views together, and only initial weights differ."""
    batch = image_case()
    nets = {"main": network(), "particle_2": network(seed=1)}
    before = copy.deepcopy(nets)
    step(batch, nets, {"threshold": 0.0})
    x = torch.cat([batch.x, *batch.unlabelled.views])
    for name, net in before.items():
        net(x)
        for one, other in zip(net.buffers(), nets[name].buffers(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("particles", [1, 3])
def test_independent_networks_have_the_loss_of_fixmatch(particles: int) -> None:
    batch, nets, _ = tables(particles)
    loss, logs = step(batch, nets, objective="fixmatch")
    row = {"threshold": torch.tensor(0.6), "weight": torch.tensor(1.0),
           "temperature": torch.tensor(1.0)}  # fmt: skip
    alone = []
    for net in nets.values():
        wanted, figures = fixmatch.step(
            {"main": net}, batch, row, fixmatch.Settings(), torch.Generator()
        )
        [gradient] = torch.autograd.grad(wanted, [net.logits])
        torch.testing.assert_close(net.logits.grad, gradient / particles)
        alone.append((wanted.item(), figures["mask_rate"].item()))
    assert loss == pytest.approx(np.mean([each[0] for each in alone]), rel=1e-6)
    assert logs["mask_rate"] == pytest.approx(np.mean([each[1] for each in alone]))
