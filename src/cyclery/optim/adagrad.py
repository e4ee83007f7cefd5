"""AdaGrad, as `torch.optim.Adagrad` but for rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclery.common.lazy import torch
from cyclery.optim._settings import EPS
from cyclery.optim.flat.optimiser import Optimiser, Part, Row

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Settings:
    """AdaGrad with L2; it has no momentum, whose schedule it ignores."""

    eps: float = field(default=1e-10, metadata=EPS)


class Rule(Optimiser):
    """p -= lr g / (sqrt(sum of g^2) + eps)."""

    VECTORS = ("sum_square",)
    SCRATCH = 1

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (square,), (scratch,) = part.state, part.scratch
        square.addcmul_(part.g, part.g)
        torch.sqrt(square, out=scratch).add_(self.settings.eps)
        part.p.addcmul_(torch.div(part.g, scratch, out=scratch), row["lr"], value=-1)
