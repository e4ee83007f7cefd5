"""ResNet-18 with a stem for small images.

K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition (CVPR 2016, arXiv
1512.03385), table 1, here with a 3x3 stem.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._settings import NORM, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """ResNet-18 (He et al. 2016) with a stem for small images: one 3x3 convolution, no pooling."""

    norm: Norm = field(default="batch", metadata=NORM)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return ResNet-18 with the small stem; its shortcuts are projections (option B)."""
    from cyclery.models._residual import SmallImageResNet

    widths = (64, 128, 256, 512)
    return SmallImageResNet(shape[0], classes, widths, 2, settings.norm, project=True)
