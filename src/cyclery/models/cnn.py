"""A small convolutional network for digits and Fashion-MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import (
    Classifier,
    Dropout,
    activation,
    conv_3x3,
    initialise,
    norm_2d,
    pool,
)
from cyclery.models.settings import SmallCnn


class Cnn(Classifier):
    """Three times convolution, norm, activation; max pooling and dropout after the first two."""

    def __init__(self, settings: SmallCnn, shape: Shape, classes: int) -> None:
        widths = [settings.width * factor for factor in (1, 2, 4)]
        super().__init__(widths[-1], classes)
        layers: list[nn.Module] = []
        channels = shape[0]
        for width in widths:
            layers += [
                conv_3x3(channels, width),
                norm_2d(settings.norm, width, settings.norm_momentum, settings.norm_eps),
                activation(settings.activation),
                nn.Sequential(nn.MaxPool2d(2), Dropout(settings.dropout)),
            ]
            channels = width
        self.body = nn.Sequential(*layers[:-1])
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, 4 x width] of images [B, C, H, W]."""
        return pool(self.body(x))


def small_cnn(settings: SmallCnn, shape: Shape, classes: int) -> Cnn:
    """Return the three-layer network."""
    return Cnn(settings, shape, classes)
