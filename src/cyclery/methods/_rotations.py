"""The four rotations of images by quarters of a turn, counter-clockwise."""

from __future__ import annotations

from collections.abc import Callable

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch

QUARTERS = 4


def check_square(shape: tuple[int, int, int], where: str, instead: str) -> None:
    """Raise a UserError unless images [C, H, W] can be turned."""
    _, height, width = shape
    if height != width:
        raise UserError(
            f"method.{where} needs square images (found {height} x {width} pixels); choose "
            f"{instead}, or images of another shape."
        )


def rotations(x: torch.Tensor) -> torch.Tensor:
    """Return square images [N, C, S, S] in all rotations [4 N, C, S, S], the upright ones first."""
    return torch.cat([torch.rot90(x, k, (2, 3)) for k in range(QUARTERS)])


def averaged(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the mean [N, K] of what ``function`` makes of the four rotations of images."""
    return function(rotations(x)).float().unflatten(0, (QUARTERS, len(x))).mean(0)
