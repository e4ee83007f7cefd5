"""A straight line, as in the learning-rate range test."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.schedules import Clock, Column, Number, Schedule, amount


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """start + (end - start) t / T, as in the learning-rate range test."""

    start: Number = field(metadata=amount("value at the first update"))
    end: Number = field(metadata=amount("value that it would reach after the last update"))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        return self.start + (self.end - self.start) * clock.t / clock.updates
