"""A small convolutional network for digits and Fashion-MNIST."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cyclery.models._settings import (
    ACTIVATION,
    NORM,
    NORM_EPS,
    NORM_MOMENTUM,
    POOLING,
    Activation,
    Norm,
    Pooling,
    Shape,
)
from cyclery.models._variants import ConvolutionSettings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ConvolutionSettings):
    """Three 3x3 convolutions of 1, 2 and 4 times the width, with two poolings between them."""

    MIN_SIDE = 4
    width: int = field(
        default=16, metadata={"doc": "channels of the first convolution", "low": 1, "high": 1024}
    )
    norm: Norm = field(default="batch", metadata=NORM)
    activation: Activation = field(default="relu", metadata=ACTIVATION)
    dropout: float = field(
        default=0.0, metadata={"doc": "share dropped after each pooling", "low": 0, "high": 0.9}
    )
    norm_momentum: float = field(default=0.1, metadata=NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=NORM_EPS)
    pooling: Pooling = field(default="average", metadata=POOLING)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return three times convolution, norm, activation; pooling and dropout after the first two.

    Scattering comes before the first convolution, and stands for the poolings.
    """
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models.layers import (
        Dropout,
        activation,
        conv_3x3,
        global_pool,
        initialise,
        norm_2d,
    )
    from cyclery.models.layers.scattering import ScatteringStem

    norm = partial(norm_2d, settings.norm, momentum=settings.norm_momentum, eps=settings.norm_eps)
    act = partial(activation, settings.activation)
    widths = [settings.width * factor for factor in (1, 2, 4)]
    net = Classifier(widths[-1], classes)
    layers: list[nn.Module] = []
    channels = shape[0]
    for index, width in enumerate(widths):
        if settings.scattering and not index:
            layers.append(ScatteringStem(shape, width, settings.scattering, norm, act))
        else:
            layers += [conv_3x3(channels, width), norm(width), act()]
        pool = [] if settings.scattering else [nn.MaxPool2d(2)]
        layers.append(nn.Sequential(*pool, Dropout(settings.dropout)))
        channels = width
    net.body = nn.Sequential(*layers[:-1], global_pool(settings.pooling))
    if not settings.scattering:
        net.stages = {name: name for name in ("body.1", "body.5", "body.9")}
    return initialise(net)
