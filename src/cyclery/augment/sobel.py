"""Sobel filter: an image becomes its edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.augment._edges import edges
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Replace each value by the steepness of its channel there, which is 0 where nothing changes.

    It is sqrt(a^2 + b^2) / 4 with Sobel's differences a across and b down, cut to the image's range
    (SimCLR, Chen et al. 2020, arXiv 2002.05709, table 3, which prints no formula).
    """

    p: float = field(default=0.5, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 1."""
        return 1

    def stage(self, images: Images) -> Stage:
        """Return what takes the edges."""
        return Sobel(self.p, images)


class Sobel(Stage):
    """Take the edges with probability ``p``."""

    def __init__(self, p: float, images: Images) -> None:
        self.p, self.largest = p, float(images.max_value)

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..max_value."""
        x = x.float()
        return torch.where(u[:, :, None, None] < self.p, edges(x).clamp_(0, self.largest), x)
