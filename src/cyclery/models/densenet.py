"""Densely connected networks for small images.

G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, Densely Connected Convolutional Networks (CVPR
2017, arXiv 1608.06993), section 3: three dense blocks; "BC" adds 1x1 bottlenecks of 4k channels
and transitions that halve the channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, conv_1x1, conv_3x3, initialise, pool
from cyclery.models.settings import DenseNet


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


class Dense(Classifier):
    """Stem, three dense blocks with transitions between them, norm and ReLU before the pooling."""

    def __init__(self, settings: DenseNet, shape: Shape, classes: int) -> None:
        growth, bc = settings.growth, settings.bc
        per_block = (settings.depth - 4) // (6 if bc else 3)
        channels = 2 * growth if bc else 16
        layers: list[nn.Module] = [conv_3x3(shape[0], channels)]
        for block in range(3):
            if block:
                outputs = channels // 2 if bc else channels
                layers.append(Transition(channels, outputs))
                channels = outputs
            for _ in range(per_block):
                layers.append(DenseLayer(channels, growth, bc))
                channels += growth
        super().__init__(channels, classes)
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, D] of images [B, C, H, W]."""
        return pool(self.body(x))


def densenet(settings: DenseNet, shape: Shape, classes: int) -> Dense:
    """Return DenseNet or DenseNet-BC of the given depth and growth rate."""
    return Dense(settings, shape, classes)
