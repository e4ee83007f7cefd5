"""The wide residual network of private training: norms after activations, no batch statistics.

S. De et al., Unlocking High-Accuracy Differentially Private Image Classification through Scale
(arXiv 2204.13650), appendix C, and google-deepmind/jax_privacy (2022): WRN-d-w with group norm of
16 groups after each ReLU, standardised weights with a learnt gain, biases in all convolutions, and
a projection at the start of all three stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_depth, check_weights
from cyclery.models._norm_last import NormLastSettings
from cyclery.models._settings import Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(NormLastSettings):
    """Wide ResNet of private training (De et al. 2022)."""

    depth: int = field(default=16, metadata={"doc": "layers, 6n + 4: 10, 16, 28, 40, ..."})
    width: int = field(
        default=4,
        metadata={"doc": "widening factor of 16, 32, 64 channels", "low": 1, "high": 1000},
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 4, or the network too large."""
        super().check(where)
        check_depth(self.depth, 6, 4, "10, 16, 28 or 40", where)
        check_weights((self.depth - 4) * 3 * 21 * (16 * self.width) ** 2, where, "width")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return a stem of 16 channels, three stages of blocks, ReLU and norm, pooling, the head."""
    from torch import nn

    from cyclery.models._activated import ActivatedBlock, activated, conv, drawn
    from cyclery.models._classifier import Classifier
    from cyclery.models.layers import Pool

    widths = [settings.width * base for base in (16, 32, 64)]
    net = Classifier(widths[-1], classes)
    layers: list[nn.Module] = [conv(shape[0], 16, 3)]
    inputs = 16
    for stage, width in enumerate(widths):
        for index in range((settings.depth - 4) // 6):
            stride = 2 if stage and not index else 1
            layers.append(ActivatedBlock(settings, inputs, width, stride, not index))
            inputs = width
    net.body = nn.Sequential(*layers, *activated(settings, inputs), Pool())
    return drawn(net, settings)
