"""A schedule rounded to powers of two."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Nested, Schedule, key
from cyclery.schedules._shared import check_divisor, positive


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """The nearest power of two on a log scale, 2^round(log2 v), for batch sizes."""

    BATCH = True
    of: Nested = field(metadata=key("the schedule to round, never 0"))

    def __post_init__(self) -> None:
        check_divisor(self.of)

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where the schedule reaches 0."""
        return np.exp2(np.rint(np.log2(positive(self.of, clock, seed))))
