"""Residual, wide, dense and dropped blocks: what they compute."""

from __future__ import annotations

import pytest
import torch
from factories.network import CIFAR, DIGITS, small
from torch import nn

from cyclery.models import build
from cyclery.models._residual import Subsample, Survival


def test_option_a_shortcut_subsamples_and_pads_channels():
    x = torch.randn(2, 3, 5, 5)
    out = Subsample(2, 4)(x)
    assert out.shape == (2, 7, 3, 3)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy weights between networks whose layers come in the same order under other names."""
    ours, theirs = target.state_dict(), source.state_dict()
    pairs = list(zip(sorted_last(ours, "head"), sorted_last(theirs, "classifier"), strict=True))
    assert [ours[a].shape for a, _ in pairs] == [theirs[b].shape for _, b in pairs]
    target.load_state_dict({a: theirs[b] for a, b in pairs})


def sorted_last(state: dict, head: str) -> list[str]:
    return sorted(state, key=lambda key: key.startswith(head))


def test_resnet18_equals_torchvision_with_a_small_stem():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    reference = models.resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    reference.maxpool = nn.Identity()
    net = small("resnet18", CIFAR)
    copy_in_order(reference.eval(), net.eval())
    x = torch.randn(2, *CIFAR)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-5)


def test_resnet50_equals_torchvision():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    reference = models.resnet50(num_classes=10)
    net = build("resnet50", {}, (3, 40, 40), 10)
    reference.classifier = reference.fc
    del reference.fc
    copy_in_order(reference.eval(), net.eval())
    reference.fc = reference.classifier
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-4)


def test_densenet_bc_equals_torchvision_with_a_small_stem():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    reference = models.DenseNet(6, (3, 3, 3), num_init_features=12, num_classes=10)
    features = nn.Sequential(*[m for n, m in reference.features.named_children() if n != "pool0"])
    features[0] = nn.Conv2d(3, 12, 3, 1, 1, bias=False)
    del features[1:3]  # torchvision's stem also has a norm and a ReLU, the CIFAR network has not.
    reference.features = features
    net = build("densenet", {"depth": 22, "growth": 6}, CIFAR, 10)
    copy_in_order(reference.eval(), net.eval())
    x = torch.randn(2, *CIFAR)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-5)


def test_wide_block_is_pre_activation():
    net = small("wrn", DIGITS, width=2).eval()
    widen, last = net.body[1], net.body[3]
    x = torch.randn(2, 16, 8, 8)
    active = torch.relu(widen.norm1(x))
    expected = widen.conv2(torch.relu(widen.norm2(widen.conv1(active)))) + widen.project(active)
    torch.testing.assert_close(widen(x), expected)
    assert last.project is not None and last(torch.randn(2, 64, 4, 4)).shape == (2, 128, 2, 2)


@pytest.mark.parametrize("width", [1, 2])
def test_wrn_with_raw_shortcuts_is_the_network_of_fixmatch(width):
    settings = {"activation": "leaky", "shortcuts": "raw", "depth": 16, "width": width}
    net = small("wrn", DIGITS, **settings).eval()
    for buffer in net.buffers():  # So that every norm does something.
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)

    def leaky(x):
        return torch.where(x > 0, x, 0.1 * x)

    stem, *blocks, norm, _, _ = net.body
    x = torch.randn(2, *DIGITS)
    y = stem(x)
    for index, block in enumerate(blocks):
        active = leaky(block.norm1(y))
        shortcut = active if index == 0 else y
        assert (block.project is None) == (block.conv1.in_channels == block.conv1.out_channels)
        if block.project is not None:
            shortcut = block.project(shortcut)
        y = shortcut + block.conv2(leaky(block.norm2(block.conv1(active))))
    expected = net.head(leaky(norm(y)).mean((2, 3)))
    torch.testing.assert_close(net(x), expected)
    usual = small("wrn", DIGITS, **settings | {"shortcuts": "activated"}).eval()
    usual.load_state_dict(net.state_dict())
    assert not torch.allclose(usual(x), expected, rtol=1e-3)


def test_survival_falls_linearly_to_p_last():
    survival = Survival(4, 0.5)
    assert survival.probability.tolist() == pytest.approx([0.875, 0.75, 0.625, 0.5])
    assert torch.equal(torch.stack(survival.eval()()), survival.probability)


def test_survival_draws_whole_batches_at_its_rates():
    torch.manual_seed(0)
    survival = Survival(4, 0.5)
    draws = torch.stack([torch.stack(survival()) for _ in range(4000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean(0).tolist() == pytest.approx(survival.probability.tolist(), abs=0.03)


def test_stochastic_depth_weighs_the_residual_branches():
    net = small("stochastic_depth", p_last=0.5)
    plain = small("resnet", depth=14)
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, *DIGITS)
    for block, p in zip(plain.eval().blocks, net.survival.probability, strict=True):
        block.residual[-1].weight.data *= p
        block.residual[-1].bias.data *= p
    torch.testing.assert_close(net.eval()(x), plain(x))


def test_stochastic_depth_that_always_survives_is_a_resnet():
    net, plain = small("stochastic_depth", p_last=1.0), small("resnet", depth=14)
    x = torch.randn(2, *DIGITS)
    assert torch.equal(net(x), plain(x))


def test_a_dropped_block_passes_its_shortcut_and_no_gradient():
    net = small("stochastic_depth")
    block = net.blocks[0]
    x = torch.rand(2, 16, 8, 8)
    out = block(x, torch.zeros(()))
    assert torch.equal(out, x)
    out.sum().backward()
    assert not any(p.grad.any() for p in block.parameters())
