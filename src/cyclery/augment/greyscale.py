"""Greyscale: colour images lose their colour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.augment._colour import check_colour, grey
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Replace each channel by 0.2989 red + 0.587 green + 0.114 blue, as torchvision does."""

    p: float = field(default=0.2, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 1."""
        return 1

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where images have no colour to lose."""
        check_colour(shape[0] if shape else None, where)

    def stage(self, images: Images) -> Stage:
        """Return what takes the colour away."""
        return Greyscale(self.p)


class Greyscale(Stage):
    """Leave out colour with probability ``p``."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images."""
        x = x.float()
        return torch.where(u[:, :, None, None] < self.p, grey(x), x)
