"""Product of several schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Nested, Schedule, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Product of schedules."""

    of: tuple[Nested, ...] = field(metadata=key("the factors"))

    def __post_init__(self) -> None:
        if not self.of:
            raise UserError("of: must have at least one entry (found []).")

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the product at every update."""
        # One after the other: all at once would take as many columns as there are factors.
        return reduce(np.multiply, (factor.values(clock, seed) for factor in self.of))
