"""Linear or sigmoid ramp-up of a loss weight: Mean Teacher (arXiv 1703.01780 and its code)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """From start to end over a first part of the run, then end: how a loss weight sets in."""

    start: Number = field(
        default=0.0,
        metadata=amount("value at the first update; a sigmoid begins 0.7 % of the way to `end`"),
    )
    end: Number = field(metadata=amount("value after the ramp"))
    over: float = field(
        default=0.4, metadata=key("the part of the updates that the ramp takes", above=0, high=1)
    )
    shape: Literal["linear", "sigmoid"] = field(
        default="linear",
        metadata=key(
            "`linear`, or `sigmoid`: start + (end - start) exp(-5 (1 - x)^2), x from 0 to 1 "
            "(Mean Teacher)"
        ),
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        x = np.minimum(1, clock.t / (self.over * clock.updates))
        rise = x if self.shape == "linear" else np.exp(-5 * (1 - x) ** 2)
        return self.start + (self.end - self.start) * rise
