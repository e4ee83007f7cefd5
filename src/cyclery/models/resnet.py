"""CIFAR ResNets with parameter-free shortcuts.

K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition (CVPR 2016, arXiv
1512.03385), section 4.2: 6n + 2 layers, option A.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_depth
from cyclery.models._settings import NORM, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """CIFAR ResNet (He et al. 2016, section 4.2): widths 16, 32, 64, option A shortcuts."""

    depth: int = field(default=20, metadata={"doc": "layers, 6n + 2: 20, 32, 56, 110, ..."})
    norm: Norm = field(default="batch", metadata=NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the CIFAR network of the given depth."""
    from cyclery.models._residual import SmallImageResNet

    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(shape[0], classes, (16, 32, 64), blocks, settings.norm)
