"""Mixtures and guesses: against closed forms, the scheme of Google's code and torchvision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories.semi_supervised import buffers_equal, network, seen
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from cyclery.methods import _mix

CPU = torch.device("cpu")


def probabilities(n: int = 7, classes: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, classes, generator=g)).softmax(1)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0])
def test_sharpening_is_a_power_that_is_normalised(temperature):
    q = probabilities()
    power = q.double().numpy() ** (1 / temperature)
    expected = power / power.sum(1, keepdims=True)
    np.testing.assert_allclose(_mix.sharpen(q, temperature).numpy(), expected, rtol=2e-5)
    of_a_row = _mix.sharpen(q, torch.tensor(temperature))
    assert torch.equal(of_a_row, _mix.sharpen(q, temperature))


def test_sharpening_leaves_certainty_and_ignorance_as_they_are():
    q = torch.tensor([[0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(_mix.sharpen(q, 0.5), q)


def test_a_guess_averages_before_it_sharpens_and_has_no_gradient():
    z = [torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 2.0, 0.0]])]
    mean = (F.softmax(z[0], 1) + F.softmax(z[1], 1)) / 2
    found = _mix.guessed(z, 0.5)
    torch.testing.assert_close(found, mean**2 / (mean**2).sum())
    assert not found.requires_grad
    each = torch.stack([_mix.sharpen(F.softmax(one, 1), 0.5) for one in z]).mean(0)
    assert (found - each).abs().max() > 0.01


def test_passes_of_guesses_are_one_by_one_and_leave_statistics_alone_where_asked():
    views = [torch.randn(6, 1, 8, 8), 3 + torch.randn(6, 1, 8, 8)]
    net = network()
    before = copy.deepcopy(net)
    found = _mix.guess_passes(net, views, net)
    for z, view in zip(found, views, strict=True):
        torch.testing.assert_close(z, copy.deepcopy(before)(view), check_dtype=True)
        assert not z.requires_grad
    assert buffers_equal(net, before)
    _mix.guess_passes(net, views)
    assert buffers_equal(net, seen(before, *views))
    assert not buffers_equal(net, before)


def test_a_pass_without_a_graph_does_not_keep_autocast_from_training():
    net, x = network(), torch.randn(6, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        _mix.guess_passes(net, [x], net)
        net(x).float().square().sum().backward()
        assert torch.is_autocast_cache_enabled()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("alpha", [0.25, 0.75, 2.0])
def test_shares_are_the_larger_side_of_a_beta(alpha):
    found = _mix.shares(torch.tensor(alpha), 4000, torch.Generator().manual_seed(1)).double()
    assert found.shape == (4000,)
    assert found.min() >= 0.5
    # max(l, 1 - l) of a symmetric law has the distribution function 2 F(s) - 1 on [1/2, 1].
    law = stats.kstest(found.numpy(), lambda s: 2 * stats.beta(alpha, alpha).cdf(s) - 1)
    assert law.pvalue > 0.01


def test_one_share_for_all_is_one_draw():
    alpha = torch.tensor(0.75)
    one = _mix.shares(alpha, 5, torch.Generator().manual_seed(3), per_sample=False)
    each = _mix.shares(alpha, 5, torch.Generator().manual_seed(3))
    assert one.shape == each.shape == (5,)
    assert len(one.unique()) == 1
    assert len(each.unique()) == 5


def test_a_permutation_has_each_row_once_and_every_order_alike():
    g = torch.Generator().manual_seed(0)
    orders = [tuple(_mix.permutation(3, g, CPU).tolist()) for _ in range(1200)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_mixture_is_that_of_torchvision():
    x, y = torch.randn(6, 3, 4, 4), torch.randint(4, (6,))
    torch.manual_seed(5)
    theirs, labels = v2.MixUp(alpha=0.75, num_classes=4)(x, y)
    torch.manual_seed(5)
    share = v2.MixUp(alpha=0.75, num_classes=4).make_params([])["lam"]
    # There the other sample is the one before.
    other, shares = torch.arange(6).roll(1), torch.full((6,), share)
    ours = _mix.mixed(x, torch.eye(4)[y], shares, other)
    torch.testing.assert_close(ours, (theirs, labels))


def test_who_is_mixed_with_itself_stays_bit_for_bit():
    x, y, share = torch.randn(9, 1, 4, 4), probabilities(9), torch.rand(9)
    found = _mix.mixed(x, y, share, torch.arange(9))
    assert torch.equal(found[0], x)
    assert torch.equal(found[1], y)


def test_joined_labels_are_mixed_as_each_alone():
    x, fine, coarse = torch.randn(5, 1, 4, 4), probabilities(5), probabilities(5, 2)
    share, other = torch.rand(5), torch.tensor([3, 1, 4, 0, 2])
    both = _mix.mixed(x, torch.cat([fine, coarse], 1), share, other)[1].split([5, 2], 1)
    for found, alone in zip(both, (fine, coarse), strict=True):
        assert torch.equal(found, _mix.mixed(x, alone, share, other)[1])


def swapped(parts: int, size: int) -> list[int]:
    """Return the order that Google's code makes, by swaps of groups one after another."""
    groups = [size // parts] * parts
    for last in range(size - sum(groups)):
        groups[-last - 1] += 1
    ends = np.cumsum(groups)[:-1]
    cut = [np.split(batch, ends) for batch in np.arange(parts * size).reshape(parts, size)]
    for i in range(1, parts):
        cut[0][i], cut[i][i] = cut[i][i], cut[0][i]
    return np.concatenate([np.concatenate(batch) for batch in cut]).tolist()


@pytest.mark.parametrize(
    ("parts", "size"), [(3, 64), (2, 7), (4, 6), (5, 64), (3, 65), (3, 3), (4, 3), (1, 5), (7, 1)]
)
def test_batches_are_interleaved_as_in_googles_code_and_back(parts, size):
    order = _mix.interleaved(parts, size)
    assert order.tolist() == swapped(parts, size)
    assert torch.equal(order[order], torch.arange(parts * size))


def test_a_batch_of_64_gives_groups_of_21_21_and_22():
    first = _mix.interleaved(3, 64)[:64] // 64
    assert first.bincount().tolist() == [21, 21, 22]


def test_losses_are_soft_cross_entropy_and_the_mean_squared_distance():
    z, y = torch.randn(11, 5, requires_grad=True), probabilities(11)
    loss_x, loss_u = _mix.loss_pair(z, y, 4)
    p = torch.tensor(z.detach().double().numpy()).softmax(1)
    entropy = -(y[:4].double() * p[:4].log()).sum(1).mean()
    distance = (y[4:].double() - p[4:]).square().sum() / (7 * 5)
    torch.testing.assert_close(loss_x.double(), entropy)
    torch.testing.assert_close(loss_u.double(), distance)
    loss_u.backward()
    assert not z.grad[:4].any()
    assert z.grad[4:].any(1).all()
