"""Linear decay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Linear from high to low over a first part of the run, then low."""

    high: Number = field(metadata=amount("value at the first update"))
    low: Number = field(metadata=amount("value after the decay"))
    over: float = field(
        default=1.0,
        metadata=key("the part of the updates that the decay takes", above=0, high=1),
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        done = np.minimum(1, clock.t / (self.over * clock.updates))
        return self.high - (self.high - self.low) * done
