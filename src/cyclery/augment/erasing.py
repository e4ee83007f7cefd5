"""Random erasing: a rectangle is covered (Zhong et al., 2020, arXiv 1708.04896)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from cyclery.augment import Images, Stage
from cyclery.augment._cover import cover
from cyclery.augment._ranges import CoveringOp
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(CoveringOp):
    """Cover a rectangle with the mean pixel (Zhong et al. 2020, arXiv 1708.04896).

    Its area is uniform, its aspect log-uniform; it lies inside the image. Sides beyond the
    image's are cut to them, where other implementations draw again.
    """

    ON = "normalised"

    @property
    def columns(self) -> int:
        """Return 5: presence, area, aspect, top, left."""
        return 5

    def stage(self, images: Images) -> Stage:
        """Return what covers a rectangle."""
        return Erase(self, images.shape)


class Erase(Stage):
    """Cover a rectangle of random area, aspect (height / width) and place."""

    sides: Tensor
    halves: Tensor
    y: Tensor
    x: Tensor
    one: Tensor

    def __init__(self, op: Settings, shape: Shape) -> None:
        self.op = op
        _, height, width = shape
        self.pixels = height * width
        self.constant("sides", torch.tensor([height, width], dtype=torch.float32))
        self.constant("halves", torch.tensor([0.5, -0.5]))
        self.constant("y", torch.arange(height, dtype=torch.float32))
        self.constant("x", torch.arange(width, dtype=torch.float32))
        self.constant("one", torch.ones(()))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return ``x``, changed in place."""
        (least, most), (flat, tall) = self.op.area, self.op.aspect
        area = (u[:, 1:2] * (most - least) + least) * self.pixels
        log_aspect = u[:, 2:3] * log(tall / flat) + log(flat)
        size = (area.sqrt() * (log_aspect * self.halves).exp()).round_()
        size = torch.minimum(size.clamp_(min=1), self.sides)
        first = (u[:, 3:5] * (self.sides - size + 1)).floor_()
        last = first + size
        present = u[:, :1] < self.op.p
        hole_y = (self.y >= first[:, :1]) & (self.y < last[:, :1]) & present
        hole_x = (self.x >= first[:, 1:]) & (self.x < last[:, 1:])
        return cover(x, hole_y.float(), hole_x.float(), self.one)
