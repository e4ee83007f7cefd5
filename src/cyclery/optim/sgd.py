"""Stochastic gradient descent with momentum, as `torch.optim.SGD` but for rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.optim.flat.optimiser import Optimiser, Part, Row

if TYPE_CHECKING:
    from torch import Tensor

    from cyclery.optim.flat.parameters import Vectors

Decay = Literal["coupled", "decoupled"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Stochastic gradient descent with momentum."""

    nesterov: bool = field(
        default=True, metadata={"doc": "look ahead along the momentum (Nesterov)"}
    )
    decay: Decay = field(
        default="coupled",
        metadata={
            "doc": "`coupled` adds the decay to the gradient (L2); `decoupled` shrinks the "
            "weights by lr times the decay"
        },
    )
    dampening: float = field(
        default=0.0,
        metadata={
            "doc": "share of a gradient kept out of the momentum; 0 with Nesterov",
            "low": 0.0,
            "below": 1.0,
        },
    )

    def __post_init__(self) -> None:
        if self.nesterov and self.dampening:
            raise UserError(
                f"dampening: {self.dampening} is not allowed with nesterov: true; "
                "set one of them to 0 or false."
            )


class Rule(Optimiser):
    """v = m v + g; p -= lr v, or lr (g + m v) with Nesterov's momentum."""

    VECTORS = ("momentum_buffer",)

    def __init__(self, flat: Vectors, settings: Settings, **decays: bool) -> None:
        self.coupled = settings.decay == "coupled"
        super().__init__(flat, settings, **decays)
        # torch.optim.SGD does not dampen the first gradient.
        self._gain = flat.scalar(1.0)

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        super().step(row)
        if self.settings.dampening:
            self._gain.fill_(1 - self.settings.dampening)

    def state(self) -> dict[str, Tensor]:
        """Return the momentum, and the gain of a gradient where it is dampened."""
        return super().state() | ({"gain": self._gain} if self.settings.dampening else {})

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        (v,) = part.state
        if self.settings.dampening:
            v.mul_(row["momentum"]).addcmul_(part.g, self._gain)
        else:
            torch.addcmul(part.g, v, row["momentum"], out=v)
        if self.settings.nesterov:
            v = part.g.addcmul_(v, row["momentum"])
        part.p.addcmul_(v, row["lr"], value=-1)
