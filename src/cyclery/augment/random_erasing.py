"""Random erasing as torchvision and timm define it: noise or the mean pixel, drawn until it fits.

Z. Zhong et al., Random Erasing Data Augmentation (AAAI 2020, arXiv 1708.04896).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Stage
from cyclery.augment._noise import normal
from cyclery.augment._ranges import ATTEMPTS, CoveringOp, Rectangles, first_fitting
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(CoveringOp):
    """Cover a rectangle with noise or the mean pixel, as torchvision and timm do.

    Its area is uniform, its aspect log-uniform. One that is not smaller than the image both ways is
    drawn again, up to 10 times, after which nothing is covered; ``erasing`` cuts it instead. Noise
    is standard normal for each channel of each pixel, after normalisation, where the mean is 0.
    """

    ON = "normalised"
    fill: Literal["mean", "noise"] = field(default="mean", metadata={"doc": "what covers"})

    @property
    def columns(self) -> int:
        """Return 23: presence, area and aspect ten times, top, left; 2 more for noise."""
        return 2 * ATTEMPTS + (5 if self.fill == "noise" else 3)

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where a range is upside down, or nothing could be covered."""
        super().check(shape, where)
        if shape is not None and min(shape[1:]) < 2:
            raise UserError(
                f"{where}: images must be at least 2 pixels each way (found {shape[1]} x "
                f"{shape[2]})."
            )

    def stage(self, images: Images) -> Stage:
        """Return what covers a rectangle."""
        return RandomErase(self, images.shape)


class RandomErase(Stage):
    """Cover the first rectangle that fits."""

    sides: Tensor
    none: Tensor
    y: Tensor
    x: Tensor
    counter: Tensor

    def __init__(self, op: Settings, shape: Shape) -> None:
        self.p, self.noise = op.p, op.fill == "noise"
        channels, height, width = shape
        self.rectangles = Rectangles(op.area, op.aspect, height * width)
        self.constant("sides", torch.tensor([height, width], dtype=torch.float64))
        self.constant("none", torch.zeros(2, dtype=torch.float64))
        self.constant("y", torch.arange(height)[:, None])
        self.constant("x", torch.arange(width))
        self.constant("counter", torch.arange(1, channels * height * width + 1))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return the images with one rectangle each covered, or none."""
        ends = 2 * ATTEMPTS + 1
        drawn = self.rectangles(u[:, 1:ends])
        size = first_fitting(drawn, (drawn < self.sides).all(2), self.none)
        first = (u[:, ends : ends + 2].double() * (self.sides - size + 1)).floor_()
        top, left = first[:, :, None, None, None].unbind(1)
        height, width = size[:, :, None, None, None].unbind(1)
        hole = (self.y >= top) & (self.y < top + height)
        hole = hole & (self.x >= left) & (self.x < left + width)
        hole = hole & (u[:, :1, None, None] < self.p)
        if not self.noise:
            return x.masked_fill_(hole, 0.0)
        return torch.where(hole, normal(u[:, -2:], self.counter).view_as(x), x)
