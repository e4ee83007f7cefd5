"""Wide residual networks.

S. Zagoruyko, N. Komodakis, Wide Residual Networks (BMVC 2016, arXiv 1605.07146): WRN-d-k with
basic pre-activation blocks. A block that changes the number of channels takes its 1x1 shortcut
from the activated input; the others from the raw input.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import (
    Classifier,
    Dropout,
    conv_1x1,
    conv_3x3,
    initialise,
    norm_2d,
    pool,
)
from cyclery.models.settings import Shape, WideResNet


class WideBlock(nn.Module):
    """Norm, ReLU, convolution, twice, with dropout before the second convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, settings: WideResNet) -> None:
        super().__init__()
        self.norm1 = norm_2d(settings.norm, inputs)
        self.conv1 = conv_3x3(inputs, outputs, stride)
        self.norm2 = norm_2d(settings.norm, outputs)
        self.drop = Dropout(settings.dropout)
        self.conv2 = conv_3x3(outputs, outputs)
        self.project = conv_1x1(inputs, outputs, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        active = F.relu(self.norm1(x))
        out = self.conv2(self.drop(F.relu(self.norm2(self.conv1(active)))))
        total: Tensor = out + (x if self.project is None else self.project(active))
        return total


class Wrn(Classifier):
    """Stem of 16 channels, three groups of blocks, norm and ReLU before the pooling."""

    def __init__(self, settings: WideResNet, shape: Shape, classes: int) -> None:
        widths = [settings.width * base for base in (16, 32, 64)]
        super().__init__(widths[-1], classes)
        layers: list[nn.Module] = [conv_3x3(shape[0], 16)]
        inputs = 16
        for group, width in enumerate(widths):
            for index in range((settings.depth - 4) // 6):
                stride = 2 if group and not index else 1
                layers.append(WideBlock(inputs, width, stride, settings))
                inputs = width
        self.body = nn.Sequential(*layers, norm_2d(settings.norm, inputs), nn.ReLU())
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, 64 x width] of images [B, C, H, W]."""
        return pool(self.body(x))


def wrn(settings: WideResNet, shape: Shape, classes: int) -> Wrn:
    """Return WRN-depth-width."""
    return Wrn(settings, shape, classes)
