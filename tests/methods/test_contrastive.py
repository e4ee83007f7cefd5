"""Contrastive losses against libraries' figures, cross-entropy and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclery.methods import _contrastive as contrastive

N, D = 6, 5
# Of z = sin(1), sin(4), sin(9), ... as two views [6, 5]: NTXentLoss of lightly 1.6.0, and within
# 1e-6 SelfSupervisedLoss(NTXentLoss) of pytorch-metric-learning 2.9.0.
LIBRARIES = {0.1: 7.118223, 0.5: 2.659188, 1.0: 2.450867}


def vectors(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return z [2 N, D]: the first views, then the second ones."""
    return torch.sin(torch.arange(1, 2 * N * D + 1, dtype=torch.float64).square()).view(
        2 * N, D
    ).to(dtype)  # fmt: skip


def cosines() -> Tensor:
    """Return the similarities [2 N, 2 N] in double precision."""
    z = contrastive.unit(vectors())
    return z @ z.T


def negatives_of(i: int, views: str) -> list[int]:
    """Return the places of an anchor's negatives."""
    return [k for k in range(2 * N) if k % N != i % N and (views == "both" or (k < N) != (i < N))]


@pytest.mark.parametrize("temperature", LIBRARIES)
def test_nt_xent_is_that_of_the_libraries(temperature: float) -> None:
    s = contrastive.similarities(contrastive.unit(vectors(torch.float32)))
    found = contrastive.nt_xent(s, temperature)
    assert found.item() == pytest.approx(LIBRARIES[temperature], rel=2e-6)


def test_nt_xent_is_cross_entropy_with_all_but_the_anchor_itself() -> None:
    s = cosines()
    rows = (s / 0.3).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(rows, (torch.arange(2 * N) + N) % (2 * N))
    assert contrastive.nt_xent(s, 0.3).item() == pytest.approx(expected.item(), rel=1e-12)


def test_nt_xent_with_negatives_of_the_other_view_is_cross_entropy_both_ways() -> None:
    s = cosines()
    across = s[:N, N:] / 0.3
    expected = sum(F.cross_entropy(x, torch.arange(N)) for x in (across, across.T)) / 2
    found = contrastive.nt_xent(s, 0.3, "other")
    assert found.item() == pytest.approx(float(expected), rel=1e-12)
    assert found < contrastive.nt_xent(s, 0.3)


def test_nt_xent_in_closed_form() -> None:
    # Two images whose views are equal and which are orthogonal to each other.
    z = torch.eye(2).repeat(2, 1)
    loss = contrastive.nt_xent(contrastive.similarities(z), 0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-6)
    # All vectors are the same: the positive is one of 2 N - 1.
    s = contrastive.similarities(torch.ones(8, 3) / 3**0.5)
    assert contrastive.nt_xent(s, 0.1).item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("views", ["both", "other"])
@pytest.mark.parametrize("mining", ["all", "semi_hard"])
@pytest.mark.parametrize("margin", [0.0, 0.4, 0.8, 1.6])
def test_the_other_losses_are_loops_over_anchors(views, mining, margin) -> None:
    s, t = cosines(), 0.2
    triplets, logistics, mined = [], [], 0
    for i in range(2 * N):
        positive = s[i, (i + N) % (2 * N)].item()
        others = [s[i, k].item() for k in negatives_of(i, views)]
        if mining == "semi_hard":
            fitting = [x for x in others if positive - margin < x < positive]
            others = [max(fitting)] if fitting else []
            mined += bool(fitting)
        count = max(1, len(others))
        triplets.append(sum(max(x - positive + margin, 0) for x in others) / count)
        attracted = math.log1p(math.exp(-positive / t))
        logistics.append(attracted + sum(math.log1p(math.exp(x / t)) for x in others) / count)
    assert mining == "all" or (0 < mined < 2 * N) == (margin > 0)
    found = contrastive.margin_triplet(s, margin, views, mining)
    assert found.item() == pytest.approx(sum(triplets) / (2 * N), rel=1e-6, abs=1e-12)
    found = contrastive.nt_logistic(s, t, views, mining, margin)
    assert found.item() == pytest.approx(sum(logistics) / (2 * N), rel=1e-6)


def test_a_semi_hard_negative_is_the_nearest_beyond_the_positive() -> None:
    # Anchor 0 has its positive at 3, negatives at 1, 2, 4, 5.
    s = torch.full((6, 6), -1.0)
    s[0] = torch.tensor([1.0, 0.9, 0.4, 0.5, 0.45, 0.2])
    rows, weights = contrastive._negatives(s, "both", "semi_hard", 0.3)
    assert rows[0].item() == pytest.approx(0.45) and weights[0].item() == 1
    # 4 and 5 are of the other view; within 0.01 of the positive there is none.
    assert contrastive._negatives(s, "other", "semi_hard", 0.3)[0][0].item() == pytest.approx(0.45)
    assert contrastive._negatives(s, "both", "semi_hard", 0.01)[1][0].item() == 0


def test_gradients_of_a_mined_loss_are_those_of_its_negative_and_positive() -> None:
    s = cosines().requires_grad_(True)
    contrastive.margin_triplet(s, 0.4, "both", "semi_hard").backward()
    assert s.grad is not None
    for i, row in enumerate(s.grad):
        taken = row.nonzero().flatten().tolist()
        if taken:
            # One is pushed away, the positive is pulled.
            assert len(taken) == 2 and (i + N) % (2 * N) in taken
            assert row.sum().item() == pytest.approx(0, abs=1e-12)
    assert s.grad.any()


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_logistic_terms_stay_finite_for_large_products(scale: float) -> None:
    s = (cosines() * 1000 * scale).requires_grad_(True)
    loss = contrastive.nt_logistic(s, 0.1)
    loss.backward()
    assert loss.isfinite() and s.grad is not None and s.grad.isfinite().all()


def test_contrastive_accuracy_looks_across_the_views_alone() -> None:
    # The second views of images 0 and 1 are exchanged; within a view all are alike.
    first = torch.eye(3)
    second = torch.eye(3)[[1, 0, 2]]
    s = contrastive.similarities(torch.cat([first, second]))
    assert contrastive.contrastive_accuracy(s).item() == pytest.approx(1 / 3)
    # More alike than any second view is another first view, which does not count.
    s[:3, :3] = 5
    assert contrastive.contrastive_accuracy(s).item() == pytest.approx(1 / 3)
    s = contrastive.similarities(torch.cat([first, first]))
    assert contrastive.contrastive_accuracy(s).item() == 1


def test_entropy_of_the_contrastive_distribution() -> None:
    s = torch.zeros(8, 8)
    assert contrastive.contrastive_entropy(s, 0.5).item() == pytest.approx(math.log(4), rel=1e-6)
    p = torch.distributions.Categorical(logits=cosines()[:N, N:] / 0.3)
    found = contrastive.contrastive_entropy(cosines(), 0.3)
    assert found.item() == pytest.approx(p.entropy().mean().item(), rel=1e-9)


def test_the_collapse_indicator_is_one_on_the_sphere_and_zero_in_a_point() -> None:
    drawn = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert float(contrastive.spread(drawn)) == pytest.approx(1, abs=0.02)
    lengths = torch.linspace(0.1, 2, 100)[:, None]
    assert float(contrastive.spread(drawn[:1] * lengths)) < 1e-3
    # Two opposite points on an axis of four: one dimension has a deviation of about 1.
    line = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]).repeat(500, 1)
    assert float(contrastive.spread(line)) == pytest.approx(0.5, abs=1e-3)


def test_similarities_are_exact_under_autocast() -> None:
    z = contrastive.unit(vectors(torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive.similarities(z.bfloat16())
    assert found.dtype == torch.float32
    z = z.bfloat16().float()
    assert torch.equal(found, z @ z.T)
