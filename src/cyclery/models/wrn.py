"""Wide residual networks.

S. Zagoruyko, N. Komodakis, Wide Residual Networks (BMVC 2016, arXiv 1605.07146): WRN-d-k with
basic pre-activation blocks. A block that changes the number of channels takes its 1x1 shortcut
from the activated input; the others from the raw input.

``shortcuts: raw`` with leaky ReLU, norm_momentum 0.001 and norm_eps 0.001 is WRN-28-2 of MixMatch
(arXiv 1905.02249) and FixMatch (arXiv 2001.07685, code). Deviations from their code: convolutions
have no bias (the norms have one) and the last layer starts as torch's does, not Glorot normal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from cyclery.common.errors import UserError
from cyclery.models._limits import check_depth, check_weights
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
from cyclery.models._variants import BlockSettings

if TYPE_CHECKING:
    from torch import nn

Shortcuts = Literal["activated", "raw"]


@dataclass(frozen=True)
class Settings(BlockSettings):
    """Wide ResNet (Zagoruyko and Komodakis 2016), pre-activation."""

    depth: int = field(default=28, metadata={"doc": "layers, 6n + 4: 10, 16, 28, 40, ..."})
    width: int = field(
        default=2,
        metadata={"doc": "widening factor of 16, 32, 64 channels", "low": 1, "high": 1000},
    )
    norm: Norm = field(default="batch", metadata=NORM)
    dropout: float = field(
        default=0.0,
        metadata={
            "doc": "share dropped between the convolutions of a block",
            "low": 0,
            "high": 0.9,
        },
    )
    activation: Activation = field(default="relu", metadata=ACTIVATION)
    norm_momentum: float = field(default=0.1, metadata=NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=NORM_EPS)
    shortcuts: Shortcuts = field(
        default="activated",
        metadata={
            "doc": "what a block's shortcut takes. activated: with a 1x1 convolution the "
            "activated input, else the raw one (the paper); raw: in the very first block the "
            "activated input, else the raw one (the code of MixMatch and FixMatch)"
        },
    )
    pooling: Pooling = field(default="average", metadata=POOLING)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 4, or settings do not go together."""
        super().check(where)
        if self.dual and self.shortcuts == "raw":
            raise UserError(
                f"{where}.shortcuts: blocks dual_selective_kernel take the raw input in any case; "
                "leave it out (found raw)."
            )
        check_depth(self.depth, 6, 4, "10, 16, 28 or 40", where)
        check_weights((self.depth - 4) * 3 * 21 * (16 * self.width) ** 2, where, "width")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return stem of 16 channels, three groups of blocks, norm and activation, pooling.

    Scattering stands for the stem and the first group, and the other groups have stride 1.
    """
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models._dual import wide
    from cyclery.models._residual import WideBlock
    from cyclery.models.layers import activation, conv_3x3, global_pool, initialise, norm_2d
    from cyclery.models.layers.scattering import ScatteringStem

    norm = partial(norm_2d, settings.norm, momentum=settings.norm_momentum, eps=settings.norm_eps)
    act = partial(activation, settings.activation)
    widths = [settings.width * base for base in (16, 32, 64)]
    net = Classifier(widths[-1], classes)
    layers: list[nn.Module] = [conv_3x3(shape[0], 16)]
    inputs = 16
    if scales := settings.scattering:
        inputs = widths[0]
        layers = [ScatteringStem(shape, inputs, scales, norm, act)]
    for group, width in enumerate(widths):
        for index in range(0 if scales and not group else (settings.depth - 4) // 6):
            stride = 2 if group and not index and not scales else 1
            if settings.dual:
                layers.append(wide(inputs, width, stride, norm, act, settings.dropout))
            else:
                activated = inputs != width
                if settings.shortcuts == "raw":
                    activated = group == index == 0
                layers.append(
                    WideBlock(inputs, width, stride, activated, norm, act, settings.dropout)
                )
            inputs = width
    net.body = nn.Sequential(*layers, norm(inputs), act(), global_pool(settings.pooling))
    if not (scales or settings.dual):
        # The norm of a group's output stands at the start of the next group.
        ends = [1 + len(layers) // 3 * group for group in (1, 2)]
        norms = [*(f"body.{end}.norm1" for end in ends), f"body.{len(layers)}"]
        net.stages = dict(zip(norms, norms, strict=True))
    return initialise(net)
