"""Ramp of a loss weight by epoch: SoTeacher (arXiv 2206.06661 and its code)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key

CLIMBS: dict[str, Callable[[Column], Column]] = {
    "linear": lambda x: x,
    "cosine": lambda x: np.cos(np.pi / 2 * (1 - x)),
    "circle": lambda x: np.sqrt(1 - (1 - x) ** 2),
    "step": np.ones_like,
}


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """start + (end - start) f(k / E) in epoch k = 1, ..., E, so `end` is reached in the last one.

    Always constant within an epoch, so its ``clock`` has no effect.
    """

    BY_EPOCH = True
    start: Number = field(
        default=0.0, metadata=amount("value in the epochs of `wait`, and where f is 0")
    )
    end: Number = field(metadata=amount("value in the last epoch"))
    wait: int = field(
        default=0, metadata=key("first epochs, which stay at `start`; k counts them", low=0)
    )
    shape: Literal["linear", "cosine", "circle", "step"] = field(
        default="linear",
        metadata=key(
            "f(x): `linear` x, `cosine` cos(pi (1 - x) / 2), `circle` sqrt(1 - (1 - x)^2), `step` "
            "1 (SoTeacher)"
        ),
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where the wait leaves no epoch."""
        if self.wait >= clock.epochs:
            raise UserError(f"wait: {self.wait} leaves none of {clock.epochs} epochs to ramp in")
        rise = CLIMBS[self.shape](np.arange(1, clock.epochs + 1) / clock.epochs)
        rise[: self.wait] = 0
        return (self.start + (self.end - self.start) * rise)[clock.epoch]
