"""The update that Adam and AdamW share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cyclery.common.lazy import torch
from cyclery.optim.flat.optimiser import Optimiser, Part, Row, average_square

if TYPE_CHECKING:
    from torch import Tensor

    from cyclery.optim.flat.parameters import Vectors


class AdamRule(Optimiser):
    """Adam; as in torch, bias corrections use this step's beta1."""

    VECTORS = ("mean", "mean_square")
    SCRATCH = 1

    def __init__(self, flat: Vectors, settings: Any, **decays: bool) -> None:
        super().__init__(flat, settings, **decays)
        # float64, because 1 - 0.999 in float32 is wrong in the fifth digit.
        self._t = flat.scalar(dtype=torch.float64)
        self._rate, self._eps = flat.scalar(), flat.scalar()

    def state(self) -> dict[str, Tensor]:
        """Return both means and how many steps were made."""
        return super().state() | {"t": self._t}

    def _scalars(self, row: Row) -> tuple[Tensor, ...]:
        # m / c1 / (sqrt(v / c2) + eps) = sqrt(c2) / c1 * m / (sqrt(v) + sqrt(c2) eps)
        self._t.add_(1)
        correction = 1 - row["momentum"].double().pow(self._t)
        root = (1 - torch.pow(self.settings.beta2, self._t)).sqrt_()
        torch.div(root * row["lr"], correction, out=self._rate)
        torch.mul(root, self.settings.eps, out=self._eps)
        return self._rate, self._eps

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (mean, square), (scratch,) = part.state, part.scratch
        rate, eps = scalars
        torch.lerp(part.g, mean, row["momentum"], out=mean)
        average_square(square, part.g, self.settings.beta2)
        torch.sqrt(square, out=scratch).add_(eps)
        part.p.addcmul_(torch.div(mean, scratch, out=scratch), rate, value=-1)
