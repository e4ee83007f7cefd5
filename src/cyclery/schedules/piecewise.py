"""Step decay at milestones, as torch's MultiStepLR."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Constant, multiplied by a factor at given points of the run."""

    value: Number = field(metadata=amount("value at the first update"))
    drops: tuple[float, ...] = field(
        metadata=key("parts of the updates after which it drops", low=0, high=1)
    )
    by: float = field(default=0.1, metadata=key("factor of each drop", above=0))

    def __post_init__(self) -> None:
        if not self.drops:
            raise UserError("drops: must have at least one entry (found []).")

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        # Rounded, because 0.1 * 30 updates is not exactly 3 in floating point.
        milestones = np.sort(np.rint(np.array(self.drops) * clock.updates))
        passed = np.searchsorted(milestones, clock.t, "right").astype(np.float64)
        return self.value * self.by**passed
