"""RMSprop, as `torch.optim.RMSprop` but for rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.common.lazy import torch
from cyclery.optim._settings import BETA2, EPS
from cyclery.optim.flat.optimiser import Optimiser, Part, Row, average_square

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Settings:
    """RMSprop with momentum after scaling, and L2."""

    alpha: float = field(default=0.99, metadata=BETA2)
    eps: float = field(default=1e-8, metadata=EPS)


class Rule(Optimiser):
    """v = m v + g / (sqrt(mean of g^2) + eps); p -= lr v."""

    VECTORS = ("mean_square", "momentum_buffer")
    SCRATCH = 1

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (square, v), (scratch,) = part.state, part.scratch
        average_square(square, part.g, self.settings.alpha)
        torch.sqrt(square, out=scratch).add_(self.settings.eps)
        v.mul_(row["momentum"]).addcdiv_(part.g, scratch)
        part.p.addcmul_(v, row["lr"], value=-1)
