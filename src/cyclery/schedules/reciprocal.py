"""Reciprocal of a schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.schedules import Clock, Column, Nested, Schedule, key
from cyclery.schedules._shared import check_divisor, positive


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """1 / schedule, such as a learning rate that undoes a temperature."""

    of: Nested = field(metadata=key("the divisor, never 0"))

    def __post_init__(self) -> None:
        check_divisor(self.of)

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where the divisor reaches 0."""
        return 1 / positive(self.of, clock, seed)
