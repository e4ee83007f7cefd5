"""CIFAR ResNets with 1x1 convolutions as shortcuts.

Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation (ICLR 2020, arXiv
1910.10699), code (RepDistiller): the CIFAR networks of He et al. (2016) with option B shortcuts,
1x1 convolutions with norms, and their "x4" forms. TAKD (arXiv 1902.03393) has the same networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_depth, check_weights
from cyclery.models._settings import NORM, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """CIFAR ResNet with option B shortcuts (1x1 convolutions), as in RepDistiller and TAKD."""

    depth: int = field(default=20, metadata={"doc": "layers, 6n + 2: 8, 14, 20, 32, 56, 110, ..."})
    widths: tuple[int, int, int, int] = field(
        default=(16, 16, 32, 64),
        metadata={
            "doc": "channels of the first convolution and of the three groups; resnet8x4 and "
            "resnet32x4 have 32, 64, 128, 256",
            "low": 1,
            "high": 10_000,
        },
    )
    norm: Norm = field(default="batch", metadata=NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        check_depth(self.depth, 6, 2, "8, 20, 32, 56 or 110", where)
        squares = sum(width**2 for width in self.widths[1:])
        check_weights((self.depth - 2) * 3 * squares, where, "widths")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the CIFAR network of the given depth and widths with projections as shortcuts."""
    from cyclery.models._residual import SmallImageResNet

    stem, *widths = settings.widths
    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(
        shape[0], classes, widths, blocks, settings.norm, project=True, stem=stem
    )
