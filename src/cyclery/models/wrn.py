"""Wide residual networks.

S. Zagoruyko, N. Komodakis, Wide Residual Networks (BMVC 2016, arXiv 1605.07146): WRN-d-k with
basic pre-activation blocks. A block that changes the number of channels takes its 1x1 shortcut
from the activated input; the others from the raw input.

``shortcuts: raw`` with leaky ReLU, norm_momentum 0.001 and norm_eps 0.001 is WRN-28-2 of MixMatch
(arXiv 1905.02249) and FixMatch (arXiv 2001.07685, code). Deviations from their code: convolutions
have no bias (the norms have one) and the last layer starts as torch's does, not Glorot normal.
"""

from __future__ import annotations

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import (
    Classifier,
    Dropout,
    activation,
    conv_1x1,
    conv_3x3,
    initialise,
    norm_2d,
    pool,
)
from cyclery.models.settings import WideResNet


class WideBlock(nn.Module):
    """Norm, activation, convolution, twice, with dropout before the second convolution.

    ``activated`` says that the shortcut begins after the first norm and activation.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, activated: bool, settings: WideResNet
    ) -> None:
        super().__init__()
        momentum, eps = settings.norm_momentum, settings.norm_eps
        self.activated = activated
        self.activation = activation(settings.activation)
        self.norm1 = norm_2d(settings.norm, inputs, momentum, eps)
        self.conv1 = conv_3x3(inputs, outputs, stride)
        self.norm2 = norm_2d(settings.norm, outputs, momentum, eps)
        self.drop = Dropout(settings.dropout)
        self.conv2 = conv_3x3(outputs, outputs)
        self.project = conv_1x1(inputs, outputs, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        active = self.activation(self.norm1(x))
        out = self.conv2(self.drop(self.activation(self.norm2(self.conv1(active)))))
        shortcut = active if self.activated else x
        total: Tensor = out + (shortcut if self.project is None else self.project(shortcut))
        return total


class Wrn(Classifier):
    """Stem of 16 channels, three groups of blocks, norm and activation before the pooling."""

    def __init__(self, settings: WideResNet, shape: Shape, classes: int) -> None:
        widths = [settings.width * base for base in (16, 32, 64)]
        super().__init__(widths[-1], classes)
        layers: list[nn.Module] = [conv_3x3(shape[0], 16)]
        inputs = 16
        for group, width in enumerate(widths):
            for index in range((settings.depth - 4) // 6):
                stride = 2 if group and not index else 1
                activated = inputs != width
                if settings.shortcuts == "raw":
                    activated = group == index == 0
                layers.append(WideBlock(inputs, width, stride, activated, settings))
                inputs = width
        norm = norm_2d(settings.norm, inputs, settings.norm_momentum, settings.norm_eps)
        self.body = nn.Sequential(*layers, norm, activation(settings.activation))
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, 64 x width] of images [B, C, H, W]."""
        return pool(self.body(x))


def wrn(settings: WideResNet, shape: Shape, classes: int) -> Wrn:
    """Return WRN-depth-width."""
    return Wrn(settings, shape, classes)
