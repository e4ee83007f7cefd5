"""Checks of ranges, and rectangles drawn from ranges of area and aspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING

from cyclery.augment import Op
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 10
"""How often an image draws a rectangle until one fits, as in torchvision and timm."""


def check_range(given: tuple[float, float], where: str) -> None:
    """Raise a UserError where a range is upside down."""
    if given[0] > given[1]:
        raise UserError(
            f"{where}: the first number must be at most the second (found {list(given)})."
        )


@dataclass(frozen=True)
class CoveringOp(Op):
    """An op that covers a rectangle of random area and aspect with probability p."""

    p: float = field(default=0.5, metadata={"doc": "probability", "above": 0.0, "high": 1.0})
    area: tuple[float, float] = field(
        default=(0.02, 0.33),
        metadata={
            "doc": "least and greatest covered share of the image",
            "above": 0.0,
            "high": 1.0,
        },
    )
    aspect: tuple[float, float] = field(
        default=(0.3, 3.3), metadata={"doc": "least and greatest height / width", "above": 0.0}
    )

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where a range is upside down."""
        check_range(self.area, f"{where}.area")
        check_range(self.aspect, f"{where}.aspect")


class Rectangles:
    """Draws of whole sides from a uniform area and a log-uniform aspect, height / width.

    ``area`` is in shares of ``pixels``.
    """

    def __init__(self, area: tuple[float, float], aspect: tuple[float, float], pixels: int) -> None:
        self.least, self.reach = area[0] * pixels, (area[1] - area[0]) * pixels
        self.flat, self.span = log(aspect[0]), log(aspect[1] / aspect[0])

    def __call__(self, u: Tensor) -> Tensor:
        """Return heights and widths [B, ATTEMPTS, 2], float64; of ``u`` [B, 2 ATTEMPTS] in pairs.

        In float64, for sides are rounded: a draw must not depend on a device's last bit.
        """
        share, aspect = u.double().unflatten(1, (-1, 2)).unbind(2)
        size = (share * self.reach).add_(self.least).sqrt_()
        half = (aspect * self.span).add_(self.flat).mul_(0.5).exp_()
        return torch.stack((size * half, size / half), 2).round_()


def first_fitting(sides: Tensor, fits: Tensor, otherwise: Tensor) -> Tensor:
    """Return the first of ``sides`` [B, ATTEMPTS, 2] that ``fits`` [B, ATTEMPTS], else another."""
    count = sides.shape[1]
    numbers = torch.arange(count, device=sides.device)
    first = torch.where(fits, numbers, count).amin(1)
    all_sides = torch.cat((sides, otherwise.expand(len(sides), 1, 2)), 1)
    return all_sides.gather(1, first[:, None, None].expand(-1, 1, 2))[:, 0]
