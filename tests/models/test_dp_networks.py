"""Networks of private training: order, norms, standardised weights, initial weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery import models
from cyclery.common.errors import UserError
from cyclery.models.layers import batch_norms
from cyclery.models.layers.standardised import StandardisedConv2d, StandardisedLinear, standardised


def made(name: str, shape: Any = (3, 16, 16), **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, settings, shape, 10)


def layer(weights: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Return ReLU, group norm of 16 groups, standardised convolution, written out."""
    x = F.relu(x)
    groups = x.reshape(len(x), 16, -1)
    mean, var = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
    x = ((groups - mean) / (var + 1e-5).sqrt()).view_as(x)
    prefix, index = name.rsplit(".", 1)
    norm = f"{prefix}.{int(index) - 1}"
    x = x * weights[f"{norm}.weight"][:, None, None] + weights[f"{norm}.bias"][:, None, None]
    w = weights[f"{name}.weight"]
    fan_in = w[0].numel()
    scale = (w.var((1, 2, 3), correction=0) * fan_in).clamp_min(1e-4).rsqrt()
    w = (w - w.mean((1, 2, 3), keepdim=True)) * (scale * weights[f"{name}.gain"])[
        :, None, None, None
    ]
    return F.conv2d(x, w, weights[f"{name}.bias"], stride, w.shape[-1] // 2)


def test_the_wide_network_is_the_papers_written_out() -> None:
    net = made("dp_wrn", depth=10, width=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = dict(net.named_parameters())
    x = torch.randn(2, 3, 16, 16)
    stem = standardised(weights["body.0.weight"], weights["body.0.gain"])
    h = F.conv2d(x, stem, weights["body.0.bias"], padding=1)
    for index, stride in ((1, 1), (2, 2), (3, 2)):
        at = f"body.{index}"
        out = layer(weights, f"{at}.residual.2", h, stride)
        out = layer(weights, f"{at}.residual.5", out)
        h = out + layer(weights, f"{at}.shortcut.2", h, stride)
    h = F.group_norm(F.relu(h), 16, weights["body.5.weight"], weights["body.5.bias"])
    expected = F.linear(h.mean((2, 3)), weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_its_size_is_the_papers() -> None:
    """2.75 million weights of WRN-16-4, 8.96 million of WRN-40-4, up to gains and projections."""
    for depth, known in ((16, 2.75e6), (40, 8.94e6)):
        net = made("dp_wrn", (3, 32, 32), depth=depth)
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(known, rel=0.01)
        identities = [b for b in net.body if isinstance(getattr(b, "shortcut", None), nn.Identity)]
        assert len(identities) == (depth - 4) // 2 - 3


def test_norms_have_sixteen_groups_and_no_statistics() -> None:
    net = made("dp_wrn", depth=10, width=1)
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {16} and {n.eps for n in norms} == {1e-5}
    assert not batch_norms(net) and not list(net.buffers())
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(net.train()(x)[:1], net.eval()(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dp_wrn", "dp_mlp"])
def test_initial_weights_have_the_variance_of_their_inputs(name: str) -> None:
    settings: Any = {"depth": 10, "width": 4} if name == "dp_wrn" else {"hidden": [256, 256]}
    net = made(name, **settings)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, std = module.weight[0].numel(), float(module.weight.detach().std())
            assert std == pytest.approx(1 / math.sqrt(fan_in), rel=0.1)
            assert not module.bias.any()
            cut = isinstance(module, nn.Linear)
            largest = float(module.weight.detach().abs().max()) * math.sqrt(fan_in)
            assert largest <= 2 / 0.8796 + 1e-5 if cut else largest > 2.5
    kinds = (StandardisedConv2d, StandardisedLinear)
    gains = [m.gain for m in net.modules() if isinstance(m, kinds)]
    assert gains and all(torch.equal(gain, torch.ones_like(gain)) for gain in gains)
    assert not isinstance(net.head, kinds)


@pytest.mark.parametrize("name", ["dp_wrn", "dp_mlp"])
def test_norm_order_and_standardisation_are_switches(name: str) -> None:
    small: Any = {"depth": 10, "width": 1} if name == "dp_wrn" else {"hidden": [32, 32]}

    def kinds(**switch: Any) -> list[str]:
        net = made(name, **small, **switch)
        names = (
            "ReLU",
            "GroupNorm",
            "StandardisedConv2d",
            "StandardisedLinear",
            "Conv2d",
            "Linear",
        )
        return [type(m).__name__ for m in net.modules() if type(m).__name__ in names]

    usual, plain = kinds(), kinds(norm="none", standardised=False)
    assert "GroupNorm" not in plain and not any("Standard" in kind for kind in plain)
    assert kinds(norm="none") == [kind for kind in usual if kind != "GroupNorm"]
    assert kinds(standardised=False) == [kind.replace("Standardised", "") for kind in usual]
    first, other = kinds(), kinds(order="norm_relu")
    at = first.index("ReLU")
    assert first[at : at + 2] == other[at : at + 2][::-1] == ["ReLU", "GroupNorm"]
    assert made(name, **small)(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(UserError, match=r"model dp_wrn\.depth: must be 6n \+ 4"):
        models.check("dp_wrn", {"depth": 15})
    with pytest.raises(UserError, match=r"model dp_mlp\.hidden: must list at least one"):
        models.check("dp_mlp", {"hidden": []})
