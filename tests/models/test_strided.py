"""Strided 1x1 convolutions compute what they say, whatever the processor's kernels make of them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cyclery import models
from cyclery.models.layers.subsampled import subsample


def shortcut(channels: int) -> nn.Conv2d:
    torch.manual_seed(channels)
    return nn.Conv2d(channels, 8, 1, 2)


@pytest.mark.parametrize("channels", [1, 4, 7, 8, 15])
@pytest.mark.parametrize("size", [7, 8])
def test_a_subsampled_shortcut_has_the_values_and_gradients_of_double_precision(
    channels: int, size: int
) -> None:
    exact = shortcut(channels).double()
    net = nn.Sequential(shortcut(channels))
    names = list(net.state_dict())
    subsample(net)
    net = copy.deepcopy(net)
    assert list(net.state_dict()) == names

    images = torch.randn(20, channels, size, size).to(memory_format=torch.channels_last)
    seen, truth = images.clone().requires_grad_(), images.double().requires_grad_()
    made, wanted = net(seen), exact(truth)
    scale = torch.randn_like(wanted)
    made.backward(scale.float())
    wanted.backward(scale)

    assert torch.allclose(made.double(), wanted, atol=1e-5)
    for one, other in [(net[0].weight, exact.weight), (net[0].bias, exact.bias), (seen, truth)]:
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad.double(), other.grad, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "settings", "changed"),
    [
        ("preresnet", {"depth": 8, "width": 4}, 2),  # 4 and 8 channels
        ("preresnet", {"depth": 8, "width": 16}, 0),
        ("dp_wrn", {"depth": 10, "width": 1}, 0),
    ],
)
def test_only_few_channels_are_subsampled(
    model: str, settings: dict[str, int], changed: int
) -> None:
    net = models.build(model, settings, (1, 8, 8), 10)
    assert sum(len(m._forward_pre_hooks) for m in net.modules()) == changed


def test_a_narrow_network_trains_where_memory_is_watched() -> None:
    """A write past the end of a block stops glibc; it had, on a processor with AVX2."""
    code = """
import torch
from cyclery import models
net = models.build("preresnet", {"depth": 8, "width": 4}, (1, 8, 8), 10).to(
    memory_format=torch.channels_last)
for _ in range(5):
    net(torch.randn(100, 1, 8, 8).to(memory_format=torch.channels_last)).sum().backward()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MALLOC_PERTURB_": "85"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
