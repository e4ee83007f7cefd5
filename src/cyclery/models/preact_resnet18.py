"""Pre-activation ResNet-18 for small images.

K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks (ECCV 2016, arXiv
1603.05027), with the groups of ResNet-18, a 3x3 stem without pooling, and norm and ReLU before the
mean over pixels. A block that changes the shape takes its 1x1 shortcut from the activated input,
the others from the raw one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_weights
from cyclery.models._settings import NORM, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Pre-activation ResNet-18 (He et al. 2016b) with a stem for small images."""

    width: int = field(
        default=64,
        metadata={
            "doc": "channels of the first group; the others have 2, 4 and 8 times",
            "low": 1,
            "high": 1024,
        },
    )
    norm: Norm = field(default="batch", metadata=NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where there are too many weights."""
        check_weights(4 * 85 * self.width**2, where, "width")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return stem, four groups of two blocks, norm and ReLU, pooling."""
    from functools import partial

    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models._residual import WideBlock
    from cyclery.models.layers import Pool, conv_3x3, initialise, norm_2d

    norm = partial(norm_2d, settings.norm)
    net = Classifier(8 * settings.width, classes)
    layers: list[nn.Module] = [conv_3x3(shape[0], settings.width)]
    inputs = settings.width
    for group in range(4):
        width = settings.width * 2**group
        for index in range(2):
            stride = 2 if group and not index else 1
            layers.append(WideBlock(inputs, width, stride, inputs != width, norm, nn.ReLU, 0.0))
            inputs = width
    net.body = nn.Sequential(*layers, norm(inputs), nn.ReLU(), Pool())
    return initialise(net)
