"""CIFAR ResNets with stochastic depth: blocks are dropped at random in training.

G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with Stochastic Depth (ECCV 2016,
arXiv 1603.09382): equations 2-5, linear decay. Deviation: a dropped block is computed and
multiplied by 0, so that one captured step serves every draw. The loss and the gradients are the
paper's; no time is saved, and a dropped block's running batch statistics are updated too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models._limits import check_depth
from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """CIFAR ResNet whose blocks are dropped at random in training (Huang et al. 2016)."""

    depth: int = field(default=110, metadata={"doc": "layers, 6n + 2: 20, 32, 56, 110, ..."})
    p_last: float = field(
        default=0.5,
        metadata={
            "doc": "survival probability of the last block; it falls linearly from 1",
            "above": 0.0,
            "high": 1.0,
        },
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the CIFAR network of the given depth with blocks that drop out."""
    from cyclery.models._residual import SmallImageResNet

    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(
        shape[0], classes, (16, 32, 64), blocks, "batch", p_last=settings.p_last
    )
