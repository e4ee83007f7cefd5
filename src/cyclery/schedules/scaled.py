"""A schedule with another peak, such as one that a search drew."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Nested, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Another schedule, multiplied so that its largest value is `peak`."""

    of: Nested = field(metadata=key("the schedule, whose shape is kept"))
    peak: float = field(metadata=amount("the largest value"))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the shape at every update, its largest value exactly the peak."""
        shape = self.of.values(clock, seed)
        highest = shape.max()
        if not highest > 0:
            raise UserError(
                f"of: must be above 0 somewhere, to have a peak (its largest value is {highest:g})."
            )
        return np.asarray(shape / highest * self.peak, dtype=np.float64)
