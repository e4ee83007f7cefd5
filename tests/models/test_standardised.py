"""Weight standardisation, and networks without batch norm."""

from __future__ import annotations

import pytest
import torch
from factories.network import DIGITS, SMALL, small
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclery import models
from cyclery.models.layers import norm_1d, norm_2d
from cyclery.models.layers.standardised import (
    StandardisedConv2d,
    StandardisedLinear,
    standardise,
    standardised,
)

NORMED = [name for name in SMALL
          if hasattr(models.settings_type(name), "norm") and name != "vgg"]  # fmt: skip


def test_the_weights_of_an_output_have_mean_zero_and_the_norm_of_its_gain() -> None:
    torch.manual_seed(0)
    weight, gain = 3 + 0.1 * torch.randn(6, 4, 3, 3), torch.linspace(0.5, 2, 6)
    found = standardised(weight, gain)
    assert found.mean((1, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(found.square().sum((1, 2, 3)), gain.square())
    # De et al., appendix: gain (w - mean) rsqrt(max(var fan_in, 1e-4)), population variance.
    flat = weight.flatten(1)
    scale = (flat.var(1, correction=0) * flat.shape[1]).clamp_min(1e-4).rsqrt()
    expected = (flat - flat.mean(1, keepdim=True)) * (scale * gain)[:, None]
    torch.testing.assert_close(found, expected.view_as(weight))
    # Neither their scale nor their mean matters, until there is hardly anything left of them.
    torch.testing.assert_close(standardised(7 * weight - 2, gain), found, rtol=1e-4, atol=1e-5)
    tiny = 1e-4 * torch.randn(2, 8)
    assert standardised(tiny, torch.ones(2)).square().sum(1).max() < 0.01


def test_a_standardised_layer_is_the_plain_one_of_standardised_weights() -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(4, 6, 3, 2, 1), StandardisedLinear(5, 3)
    made, x = StandardisedConv2d.of(conv), torch.randn(2, 4, 8, 8)
    assert made.weight is conv.weight and made.bias is conv.bias
    with torch.no_grad():
        made.gain.uniform_(0.5, 2)
        expected = nn.functional.conv2d(x, standardised(conv.weight, made.gain), conv.bias, 2, 1)
        torch.testing.assert_close(made(x), expected)
        v = torch.randn(7, 5)
        expected = v @ standardised(linear.weight, linear.gain).T + linear.bias
        torch.testing.assert_close(linear(v), expected)


def test_the_gradient_by_weights_has_nothing_that_standardisation_removes() -> None:
    torch.manual_seed(0)
    conv = StandardisedConv2d.of(nn.Conv2d(2, 3, 3, bias=False))
    conv(torch.randn(2, 2, 6, 6)).square().sum().backward()
    grad, weight = conv.weight.grad, conv.weight.detach()
    assert grad is not None and conv.gain.grad is not None
    scale = grad.abs().max()
    assert (grad.sum((1, 2, 3)) / scale).abs().max() < 1e-4
    assert ((grad * weight).sum((1, 2, 3)) / scale).abs().max() < 1e-4


@pytest.mark.parametrize("name", NORMED)
def test_a_network_with_group_norm_can_have_standardised_weights(name: str) -> None:
    """The very weights of the one with group norm, and a gain for each output besides."""
    plain, net = (small(name, norm=norm) for norm in ("group", "group_ws"))
    own, theirs = net.state_dict(), plain.state_dict()
    assert {key for key in own if not key.endswith(".gain")} == theirs.keys()
    assert all(torch.equal(own[key], value) for key, value in theirs.items())
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    others = [m for m in layers if not isinstance(m, StandardisedConv2d | StandardisedLinear)]
    assert len(others) < len(layers) and all(isinstance(m, nn.Linear) for m in others)
    assert not any(isinstance(m, _BatchNorm) for m in net.modules())
    # Samples do not see each other, in training either.
    x = torch.randn(4, *DIGITS)
    torch.testing.assert_close(net(x)[:2], net(x[:2]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x), plain(x), rtol=1e-2)


@pytest.mark.parametrize("name", NORMED)
def test_a_network_without_norms_has_biases_in_their_place(name: str) -> None:
    net, plain = small(name, norm="none"), small(name, norm="group")
    assert not any(isinstance(m, _BatchNorm | nn.GroupNorm) for m in net.modules())
    norms = sum(isinstance(m, nn.GroupNorm) for m in plain.modules())
    assert sum(1 for _ in plain.parameters()) - sum(1 for _ in net.parameters()) == norms
    assert net(torch.randn(2, *DIGITS)).shape == (2, 10)


def test_the_norms_of_vectors_are_those_of_maps_of_a_pixel() -> None:
    x = torch.randn(8, 32)
    for kind in ("group", "layer", "group_ws", "none", "batch"):
        one, two = norm_1d(kind, 32), norm_2d(kind, 32)
        for parameter, other in zip(one.parameters(), two.parameters(), strict=True):
            with torch.no_grad():
                other.copy_(parameter.uniform_(0.5, 2))
        torch.testing.assert_close(one(x), two(x[:, :, None, None])[:, :, 0, 0])


def test_the_perceptron_with_batch_norm_is_the_one_of_that_name() -> None:
    one, two = small("mlp", norm="batch", hidden=[16, 8]), small("bn_mlp")
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert models.check("mlp", {"norm": "batch"}).batch_norm
    assert not models.check("mlp", {}).batch_norm


def test_other_layers_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 4))
    standardise(net)
    assert type(net[0]) is StandardisedConv2d and type(net[1]) is nn.Linear
    first = net[0]
    standardise(net)
    assert net[0] is first
