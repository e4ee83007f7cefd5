"""AdaDelta, as `torch.optim.Adadelta` but for rounding."""

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
    """AdaDelta with L2; it has no momentum, whose schedule it ignores."""

    rho: float = field(default=0.9, metadata=BETA2)
    eps: float = field(default=1e-6, metadata=EPS)


class Rule(Optimiser):
    """d = g sqrt((mean of d^2 + eps) / (mean of g^2 + eps)); p -= lr d."""

    VECTORS = ("mean_square", "mean_square_delta")
    SCRATCH = 2

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (square, moved), (scratch, delta) = part.state, part.scratch
        average_square(square, part.g, self.settings.rho)
        torch.add(square, self.settings.eps, out=scratch)
        torch.add(moved, self.settings.eps, out=delta).div_(scratch).sqrt_().mul_(part.g)
        average_square(moved, delta, self.settings.rho)
        part.p.addcmul_(delta, row["lr"], value=-1)
