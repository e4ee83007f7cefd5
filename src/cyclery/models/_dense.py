"""Layers of densely connected networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import conv_1x1, conv_3x3


class DenseLayer(nn.Module):
    """Norm, ReLU, convolution (twice with a bottleneck), joined to the layer's own input."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.BatchNorm2d(inputs), nn.ReLU()]
        if bottleneck:
            steps += [conv_1x1(inputs, 4 * growth), nn.BatchNorm2d(4 * growth), nn.ReLU()]
            inputs = 4 * growth
        self.steps = nn.Sequential(*steps, conv_3x3(inputs, growth))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] as [B, C + growth, H, W]."""
        return torch.cat((x, self.steps(x)), 1)


class Transition(nn.Module):
    """Norm, ReLU, 1x1 convolution and 2x2 mean pooling between two dense blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = conv_1x1(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps at half the size."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)
