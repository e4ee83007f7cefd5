"""Multi-layer perceptron with a choice of norms: batch norm's is ``bn_mlp``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.models import bn_mlp
from cyclery.models._settings import NORM, Norm, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(bn_mlp.Settings):
    """Multi-layer perceptron: linear, norm, activation per hidden layer."""

    norm: Norm = field(default="group", metadata=NORM)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the perceptron: linear, norm, activation, dropout for each hidden width.

    With ``group_ws`` linear layers are standardised, but for the head.
    """
    from cyclery.models._perceptron import perceptron

    return perceptron(settings, settings.norm, shape, classes)
