"""Multi-layer perceptron with batch norm, the network of the smoke tier."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, Dropout, activation
from cyclery.models.settings import BnMlp


class Mlp(Classifier):
    """Linear, batch norm, activation, dropout per hidden width; linear layers start as torch's."""

    def __init__(self, settings: BnMlp, shape: Shape, classes: int) -> None:
        super().__init__(settings.hidden[-1], classes)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise((prod(shape), *settings.hidden)):
            layers += [
                nn.Linear(inputs, outputs, bias=False),
                nn.BatchNorm1d(outputs, settings.norm_eps, settings.norm_momentum),
                nn.Sequential(activation(settings.activation), Dropout(settings.dropout)),
            ]
        self.body = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer [B, D] of images [B, C, H, W]."""
        out: Tensor = self.body(x)
        return out


def bn_mlp(settings: BnMlp, shape: Shape, classes: int) -> Mlp:
    """Return the perceptron."""
    return Mlp(settings, shape, classes)
