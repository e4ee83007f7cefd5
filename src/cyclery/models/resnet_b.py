"""CIFAR ResNets with 1x1 convolutions as shortcuts.

Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation (ICLR 2020, arXiv
1910.10699), code (RepDistiller): the CIFAR networks of He et al. (2016) with option B shortcuts,
1x1 convolutions with norms, and their "x4" forms. TAKD (arXiv 1902.03393) has the same networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.models._limits import check_depth, check_weights
from cyclery.models._settings import NORM, Norm, Shape
from cyclery.models._variants import GROUPS_SMALL, BlockSettings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(BlockSettings):
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
        """Raise a UserError where the depth is not 6n + 2, or settings do not go together."""
        super().check(where)
        if self.dual and any(width % GROUPS_SMALL for width in self.widths):
            raise UserError(
                f"{where}.widths: blocks dual_selective_kernel have {GROUPS_SMALL} groups, so each "
                f"must be a multiple of {GROUPS_SMALL} (found {list(self.widths)})."
            )
        check_depth(self.depth, 6, 2, "8, 20, 32, 56 or 110", where)
        squares = sum(width**2 for width in self.widths[1:])
        check_weights((self.depth - 2) * 3 * squares, where, "widths")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the CIFAR network of the given depth and widths with projections as shortcuts.

    Scattering stands for the stem and the first group, and the other groups have stride 1.
    """
    from cyclery.models._dual import basic
    from cyclery.models._residual import SmallImageResNet
    from cyclery.models.layers import norm_2d
    from cyclery.models.layers.scattering import ScatteringStem

    stem, *widths = settings.widths
    blocks, norm = (settings.depth - 2) // 6, partial(norm_2d, settings.norm)
    scales = settings.scattering
    return SmallImageResNet(
        shape[0],
        classes,
        widths,
        blocks,
        settings.norm,
        project=True,
        stem=stem,
        first=ScatteringStem(shape, widths[0], scales, norm) if scales else None,
        block=partial(basic, norm=norm) if settings.dual else None,
    )
