"""Solarising: bright pixels are inverted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.augment._solarise import solarise
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Invert all values from a threshold on, as in BYOL (Grill et al. 2020, arXiv 2006.07733).

    With threshold 0 every pixel is inverted.
    """

    threshold: float = field(
        default=0.5, metadata={"doc": "as a share of the largest value", "low": 0.0, "high": 1.0}
    )
    p: float = field(default=0.2, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 1."""
        return 1

    def stage(self, images: Images) -> Stage:
        """Return what inverts bright pixels."""
        return Solarise(self, images.max_value)


class Solarise(Stage):
    """Invert with probability p: for the other images, the threshold lies above every value."""

    least: Tensor
    never: Tensor

    def __init__(self, op: Settings, max_value: int) -> None:
        self.p, self.largest = op.p, float(max_value)
        self.constant("least", torch.tensor(op.threshold * self.largest))
        self.constant("never", torch.tensor(self.largest + 1))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images."""
        x = x.float()
        threshold = torch.where(u[:, :, None, None] < self.p, self.least, self.never)
        return solarise(x, threshold, self.largest, torch.empty_like(x))
