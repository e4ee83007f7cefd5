"""A constant value."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """One value throughout; a bare number means the same."""

    BY_EPOCH = True
    BATCH = True
    value: Number = field(metadata=amount("the value"))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        return np.full(clock.updates, self.value, dtype=np.float64)
