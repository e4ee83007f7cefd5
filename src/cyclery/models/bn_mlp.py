"""Multi-layer perceptron with batch norm, the network of the smoke tier."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.models._limits import check_weights
from cyclery.models._settings import (
    ACTIVATION,
    NORM_EPS,
    NORM_MOMENTUM,
    Activation,
    ModelSettings,
    Shape,
)

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Multi-layer perceptron: linear, batch norm, activation per hidden layer."""

    hidden: tuple[int, ...] = field(
        default=(128, 128),
        metadata={"doc": "units of each hidden layer", "low": 1, "high": 100_000},
    )
    activation: Activation = field(default="relu", metadata=ACTIVATION)
    dropout: float = field(
        default=0.0,
        metadata={"doc": "share dropped after each hidden layer", "low": 0, "high": 0.9},
    )
    norm_momentum: float = field(default=0.1, metadata=NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=NORM_EPS)

    def check(self, where: str) -> None:
        """Raise a UserError where there is no hidden layer, or too much of them."""
        if not self.hidden:
            raise UserError(f"{where}.hidden: must list at least one layer (found []).")
        check_weights(sum(a * b for a, b in pairwise(self.hidden)), where, "hidden")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the perceptron: linear, batch norm, activation, dropout for each hidden width.

    Linear layers start as torch's.
    """
    from cyclery.models._perceptron import perceptron

    return perceptron(settings, "batch", shape, classes)
