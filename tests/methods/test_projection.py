"""Projectors and predictors: layers, biases and norms as each code has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclery.methods._projection import mlp

L, B, R = "linear", "norm", "relu"
KINDS = {nn.Linear: L, nn.BatchNorm1d: B, nn.ReLU: R}
# Of a vector of 20: layers, widths, biases of the linear layers, and trained parameters of norms.
CODES = {
    "simclr": (
        mlp(20, 20, 8, output_norm="scale", std=0.01),
        [L, B, R, L, B], [(20, 20), (20, 8)], [False, False], 2 * 20 + 8,
    ),
    "simclr v2": (
        mlp(20, 20, 8, layers=3, output_norm="scale", std=0.01),
        [L, B, R, L, B, R, L, B], [(20, 20), (20, 20), (20, 8)], [False] * 3, 4 * 20 + 8,
    ),
    "lightly": (
        mlp(20, 20, 8, output_norm="affine"),
        [L, B, R, L, B], [(20, 20), (20, 8)], [False, False], 2 * 20 + 2 * 8,
    ),
    "solo-learn": (
        mlp(20, 50, 8, hidden_norm=False), [L, R, L], [(20, 50), (50, 8)], [True, True], 0,
    ),
    "byol": (
        mlp(20, 50, 8, hidden_bias=True, output_bias=False),
        [L, B, R, L], [(20, 50), (50, 8)], [True, False], 2 * 50,
    ),
    "opencos": (
        mlp(20, 20, 20, hidden_norm=False), [L, R, L], [(20, 20), (20, 20)], [True, True], 0,
    ),
    "linear": (mlp(20, 50, 8, layers=1, output_norm="scale"), [L, B], [(20, 8)], [False], 8),
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_layers_are_those_of_the_code(code: str) -> None:
    net, kinds, widths, biases, of_norms = CODES[code]
    assert [KINDS[type(layer)] for layer in net] == kinds
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == widths
    assert [layer.bias is not None for layer in linear] == biases
    norms = [p for layer in net if isinstance(layer, nn.BatchNorm1d) for p in layer.parameters()]
    assert sum(p.numel() for p in norms if p.requires_grad) == of_norms
    assert net(torch.randn(7, 20)).shape == (7, widths[-1][1])


def test_an_output_without_offset_is_centred() -> None:
    net = mlp(20, 20, 8, output_norm="scale")
    z = net(torch.randn(64, 20) + 3)
    assert z.mean(0).abs().max() < 1e-5
    z.square().sum().backward()
    assert net[-1].weight.grad is not None and net[-1].bias.grad is None


def test_no_layer_is_the_identity() -> None:
    x = torch.randn(3, 20)
    net = mlp(20, 50, 8, layers=0, output_norm="scale")
    assert torch.equal(net(x), x) and not list(net.parameters())


def test_initial_weights() -> None:
    torch.manual_seed(0)
    for layer in mlp(400, 400, 100, hidden_norm=False, std=0.01)[::2]:
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert not layer.bias.any()
    torch.manual_seed(0)
    plain = mlp(400, 400, 100, hidden_norm=False)
    torch.manual_seed(0)
    assert torch.equal(plain[0].weight, nn.Linear(400, 400).weight)
