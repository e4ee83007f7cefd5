"""Gaussian noise on every value."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.augment._noise import normal
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Add normal noise to each value by itself, and cut values to the image's range."""

    deviation: float = field(
        default=0.1,
        metadata={"doc": "as a share of the largest value", "above": 0.0, "high": 1.0},
    )
    p: float = field(default=0.5, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 3: presence, and two that choose the noise."""
        return 3

    def stage(self, images: Images) -> Stage:
        """Return what adds noise."""
        return Noisy(self, images)


class Noisy(Stage):
    """Add noise with probability ``p``."""

    counter: Tensor

    def __init__(self, op: Settings, images: Images) -> None:
        self.p, self.largest = op.p, float(images.max_value)
        self.deviation = op.deviation * self.largest
        self.constant("counter", torch.arange(1, prod(images.shape) + 1))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..max_value."""
        x = x.float()
        noise = normal(u[:, 1:], self.counter).view_as(x)
        noisy = torch.add(x, noise, alpha=self.deviation).clamp_(0, self.largest)
        return torch.where(u[:, :1, None, None] < self.p, noisy, x)
