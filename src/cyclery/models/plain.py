"""The plain convolutional networks of teacher assistants, named by how many convolutions they have.

S. I. Mirzadeh, M. Farajtabar, A. Li, N. Levine, A. Matsukawa, H. Ghasemzadeh, Improved Knowledge
Distillation via Teacher Assistant (AAAI 2020, arXiv 1902.03393). Layers, widths and initial
weights (torch's) are those of its code. Deviations: the convolutions have no bias, for the norm
that follows has one and the function is the same; the linear layer fits the maps of any image,
and where the last pooling would leave less than 2 x 2 pixels there is none.
"""

from __future__ import annotations

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, conv_3x3, norm_2d, scaled
from cyclery.models.settings import PlainCnn


def layout(settings: PlainCnn) -> tuple[list[list[int]], int, int]:
    """Return the channels by group of convolutions, the pooled groups, the hidden units or 0."""
    size, larger = settings.size, settings.widths == "cifar100"
    if size == 10:
        groups, hidden = [[32] * 2, [64] * 2, [128] * 2, [256] * 4], 512 if larger else 128
    else:
        base = 32 if larger else 16
        groups = [[base]] * 2 if size == 2 else [[base * 2**g] * 2 for g in range(size // 2)]
        hidden = 64 if size == 8 else 0
    return groups, 2 if larger and size == 6 else len(groups), hidden


class Plain(Classifier):
    """Groups of convolution, norm and ReLU with max pooling; perhaps one hidden linear layer."""

    def __init__(self, settings: PlainCnn, shape: Shape, classes: int) -> None:
        groups, pooled, hidden = layout(settings)
        channels, height, width = shape
        layers: list[nn.Module] = []
        for index, group in enumerate(groups):
            for outputs in (scaled(count, settings.width) for count in group):
                layers += [conv_3x3(channels, outputs), norm_2d(settings.norm, outputs), nn.ReLU()]
                channels = outputs
            if index < pooled and min(height, width) >= 4:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        layers.append(nn.Flatten())
        features = channels * height * width
        if hidden:
            hidden = scaled(hidden, settings.width)
            layers += [nn.Linear(features, hidden), nn.ReLU()]
        super().__init__(hidden or features, classes)
        self.body = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """Return the hidden layer, or else all maps, [B, D] of images [B, C, H, W]."""
        out: Tensor = self.body(x)
        return out


def plain_cnn(settings: PlainCnn, shape: Shape, classes: int) -> Plain:
    """Return the plain network of the given size."""
    return Plain(settings, shape, classes)
