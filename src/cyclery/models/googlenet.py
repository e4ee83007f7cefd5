"""GoogLeNet of torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """GoogLeNet of torchvision (Szegedy et al. 2015, with batch norm), no auxiliary heads."""

    FEATURES = False
    MIN_SIDE = 32
    CHANNELS = 3


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's GoogLeNet with random weights and without auxiliary classifiers."""
    from cyclery.models._external import imported, with_own_dropout

    models = imported("torchvision.models", "googlenet")
    # Left out, ``init_weights`` raises a warning about its future default.
    network = models.googlenet(num_classes=classes, aux_logits=False, init_weights=True)
    return with_own_dropout(network)
