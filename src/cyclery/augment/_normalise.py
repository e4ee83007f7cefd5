"""The normalisation stage, between ops on pixels and ops on normalised images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclery.augment._op import Stage
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Normalise(Stage):
    """(x / max_value - mean) / std as one multiplication and one addition."""

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], max_value: int) -> None:
        # In float64 first: the constants carry the only rounding error that is avoidable.
        scale = 1 / torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
        offset = -torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1) * scale
        self.constant("scale", (scale / max_value).float())
        self.constant("offset", offset.float())

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return normalised float32; in place where ``x`` is float already (an earlier stage's)."""
        return x.float().mul_(self.scale).add_(self.offset)
