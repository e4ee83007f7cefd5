"""Helper of the ops that cover a part of the finished image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def cover(x: Tensor, hole_y: Tensor, hole_x: Tensor, one: Tensor) -> Tensor:
    """Set ``x`` to 0 in place where ``hole_y`` [B, H] and ``hole_x`` [B, W] are both 1."""
    kept = torch.addcmul(one, hole_y[:, None, :, None], hole_x[:, None, None, :], value=-1)
    return x.mul_(kept)
