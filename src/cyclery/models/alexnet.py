"""AlexNet of torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """AlexNet of torchvision (Krizhevsky 2014, one column), for large images."""

    FEATURES = False
    MIN_SIDE = 63
    CHANNELS = 3

    @property
    def batch_norm(self) -> bool:
        """Return False: this network has no norms."""
        return False


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's AlexNet with random weights."""
    from cyclery.models._external import PoolTo, imported, with_own_dropout

    network = imported("torchvision.models", "alexnet").alexnet(num_classes=classes)
    network.avgpool = PoolTo(network.avgpool.output_size)
    return with_own_dropout(network)
