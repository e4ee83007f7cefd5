"""Rotation by quarter turns, which interpolates nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Turn by 0, 90, 180 or 270 degrees counter-clockwise, each with probability 1/4."""

    @property
    def columns(self) -> int:
        """Return 1: a quarter of its range for each turn."""
        return 1

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where a turned image would have another shape."""
        if shape is not None and shape[1] != shape[2]:
            raise UserError(
                f"{where}: images must be square (found {shape[1]} x {shape[2]} pixels)."
            )

    def stage(self, images: Images) -> Stage:
        """Return a gather."""
        return Turn(images.shape)


class Turn(Stage):
    """Read pixel i of an image that is turned k times from pixel ``table[k, i]``."""

    table: Tensor

    def __init__(self, shape: Shape) -> None:
        places = torch.arange(shape[1] * shape[2]).view(shape[1:])
        turns = [places.rot90(k, (0, 1)).flatten() for k in range(4)]
        self.constant("table", torch.stack(turns))

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return the turned images, of the type of ``x``."""
        index = self.table.index_select(0, (u[:, 0] * 4).long())[:, None]
        flat = x.flatten(2)
        return flat.gather(2, index.expand_as(flat)).view_as(x)
