"""Linear head, which nearly all networks use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings:
    """One linear layer with a bias, which starts as torch's does."""


def build(settings: Settings, width: int, classes: int) -> nn.Module:
    """Return the layer, [B, width] -> [B, classes]."""
    from torch import nn

    return nn.Linear(width, classes)
