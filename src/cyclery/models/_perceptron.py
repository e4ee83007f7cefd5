"""The perceptrons: linear, norm, activation, dropout for each hidden width."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

from torch import nn

from cyclery.models._classifier import Classifier
from cyclery.models._settings import Norm, Shape
from cyclery.models.layers import Dropout, activation, norm_1d
from cyclery.models.layers.standardised import StandardisedLinear


def perceptron(settings: Any, norm: Norm, shape: Shape, classes: int) -> nn.Module:
    """Return a perceptron of the settings of ``bn_mlp``; linear layers start as torch's.

    With ``group_ws`` they are standardised, but for the head.
    """
    net = Classifier(settings.hidden[-1], classes)
    linear = StandardisedLinear if norm == "group_ws" else nn.Linear
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise((prod(shape), *settings.hidden)):
        layers += [
            linear(inputs, outputs, bias=False),
            norm_1d(norm, outputs, settings.norm_momentum, settings.norm_eps),
            nn.Sequential(activation(settings.activation), Dropout(settings.dropout)),
        ]
    net.body = nn.Sequential(*layers)
    norms = [f"body.{2 + 3 * index}" for index in range(len(settings.hidden))]
    net.stages = dict(zip(norms, norms, strict=True))
    return net
