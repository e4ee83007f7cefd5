"""Densely connected networks for small images.

G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, Densely Connected Convolutional Networks (CVPR
2017, arXiv 1608.06993), section 3: three dense blocks; "BC" adds 1x1 bottlenecks of 4k channels
and transitions that halve the channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_depth, check_weights
from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """DenseNet for small images (Huang et al. 2017), with or without bottleneck and compression."""

    MIN_SIDE = 4
    depth: int = field(
        default=100, metadata={"doc": "layers, 6n + 4 with bc, else 3n + 4: 40, 100, 190, ..."}
    )
    growth: int = field(
        default=12, metadata={"doc": "channels that each layer adds", "low": 1, "high": 1000}
    )
    bc: bool = field(
        default=True, metadata={"doc": "1x1 bottlenecks, and transitions that halve the channels"}
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth does not divide into three blocks."""
        if self.bc:
            check_depth(self.depth, 6, 4, "40, 100, 190 or 250", f"{where} with bc")
        else:
            check_depth(self.depth, 3, 4, "40 or 100", f"{where} without bc")
        layers = (self.depth - 4) // (2 if self.bc else 1)
        check_weights(_weights(layers, self.growth, self.bc), where, "growth")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return stem, three dense blocks with transitions between them, norm and ReLU."""
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models._dense import DenseLayer, Transition
    from cyclery.models.layers import Pool, conv_3x3, initialise

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
    net = Classifier(channels, classes)
    net.body = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), Pool())
    return initialise(net)


def _weights(layers: int, growth: int, bottleneck: bool) -> int:
    """Return about how many weights a DenseNet of so many layers has."""
    # Each takes what the stem and those before it gave; transitions halve that.
    inputs = layers * growth // (4 if bottleneck else 2) + 2 * growth
    each = 4 * growth * inputs + 36 * growth**2 if bottleneck else 9 * growth * inputs
    return layers * each
