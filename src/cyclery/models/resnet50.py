"""ResNet-50.

K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition (CVPR 2016, arXiv
1512.03385), table 1, in torchvision's form: the 3x3 convolution of a bottleneck has the stride.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.models._settings import NORM, WIDTH, Norm, Shape
from cyclery.models._variants import GROUPS, BlockSettings

if TYPE_CHECKING:
    from torch import nn

DEPTHS = (3, 4, 6, 3)


@dataclass(frozen=True)
class Settings(BlockSettings):
    """ResNet-50 (He et al. 2016): a 7x7 stem of stride 2 and max pooling, then bottlenecks."""

    MIN_SIDE = 17
    width: float = field(default=1.0, metadata=WIDTH)
    norm: Norm = field(default="batch", metadata=NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where settings do not go together."""
        super().check(where)
        if self.dual and 2 * 64 * self.width % GROUPS:
            raise UserError(
                f"{where}.width: blocks dual_selective_kernel have {GROUPS} groups of 128 times "
                f"the width, so it must be a multiple of {GROUPS / 128:g} (found {self.width:g})."
            )


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return stem, max pooling, four groups of bottlenecks, pooling.

    Scattering stands for all before the third group, and that has stride 1.
    """
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models._dual import bottleneck
    from cyclery.models._residual import Bottleneck
    from cyclery.models.layers import Pool, initialise, norm_2d, scaled
    from cyclery.models.layers.scattering import ScatteringStem

    norm = partial(norm_2d, settings.norm)
    block = (
        partial(bottleneck, norm=norm) if settings.dual else partial(Bottleneck, norm=settings.norm)
    )
    widths = [scaled(base, settings.width) for base in (64, 128, 256, 512)]
    net = Classifier(4 * widths[-1], classes)
    if scales := settings.scattering:
        inputs, first = 4 * widths[1], 2
        layers: list[nn.Module] = [ScatteringStem(shape, inputs, scales, norm)]
    else:
        inputs, first = widths[0], 0
        stem = nn.Conv2d(shape[0], inputs, 7, 2, 3, bias=False)
        layers = [stem, norm(inputs), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for group, (width, depth) in list(enumerate(zip(widths, DEPTHS, strict=True)))[first:]:
        for index in range(depth):
            stride = 2 if group > first and not index else 1
            layers.append(block(inputs, width, stride))
            inputs = 4 * width
    net.body = nn.Sequential(*layers, Pool())
    return initialise(net)
