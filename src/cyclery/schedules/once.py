"""One value for one update, another for all others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key
from cyclery.schedules._shared import check_either


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """One value at one update and another at all others, as where a step is taken only once."""

    value: Number = field(metadata=amount("value at that update"))
    otherwise: Number = field(default=0.0, metadata=amount("value at all other updates"))
    at: int | None = field(
        default=None, metadata=key("the update, counted from 0; or give `fraction`", low=0)
    )
    fraction: float | None = field(
        default=None,
        metadata=key("the part of the updates that is over before it", low=0, below=1),
    )

    def __post_init__(self) -> None:
        check_either(self, "at", "fraction")

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where the run has no such update."""
        found = np.full(clock.updates, self.otherwise, dtype=np.float64)
        found[self._place(clock.updates)] = self.value
        return found

    def _place(self, updates: int) -> int:
        if self.fraction is not None:
            # Of few updates the last is the nearest to all that is left.
            return min(round(self.fraction * updates), updates - 1)
        at = self.at or 0
        if at >= updates:
            raise UserError(
                f"at: must be below {updates}, the number of updates that there are, for they "
                f"count from 0 (found {at}); or say where as a `fraction`."
            )
        return at
