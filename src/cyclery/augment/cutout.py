"""Cutout: a square is covered (DeVries and Taylor 2017, arXiv 1708.04552)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage, check_side
from cyclery.augment._cover import cover
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Cover a square with the mean pixel (DeVries and Taylor 2017, arXiv 1708.04552).

    Its centre is drawn from all pixels, so that up to three quarters of it may lie outside. The
    fill is zero after normalisation, which is the mean pixel of the training images.
    """

    ON = "normalised"
    size: int = field(metadata={"doc": "side of the square in pixels", "low": 1})
    p: float = field(default=1.0, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 2, or 3 where the square comes only with probability p."""
        return 2 if self.p == 1 else 3

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the square is larger than the image."""
        check_side(self.size, shape, f"{where}.size", below=False)

    def stage(self, images: Images) -> Stage:
        """Return what covers a square."""
        return CutOut(self, images.shape)


class CutOut(Stage):
    """Cover a square around a random pixel; of an even side, the larger half lies before it."""

    rows: Tensor
    cols: Tensor
    sides: Tensor
    one: Tensor

    def __init__(self, op: Settings, shape: Shape) -> None:
        self.p = op.p
        _, height, width = shape
        for name, side in (("rows", height), ("cols", width)):
            first = torch.arange(side)[:, None] - op.size // 2
            pixel = torch.arange(side)
            self.constant(name, ((pixel >= first) & (pixel < first + op.size)).float())
        self.constant("sides", torch.tensor([height, width], dtype=torch.float32))
        self.constant("one", torch.ones(()))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return ``x``, changed in place."""
        centre = (u[:, :2] * self.sides).long()
        hole_y = self.rows.index_select(0, centre[:, 0])
        hole_x = self.cols.index_select(0, centre[:, 1])
        if self.p < 1:
            hole_y = hole_y * (u[:, 2:] < self.p)
        return cover(x, hole_y, hole_x, self.one)
