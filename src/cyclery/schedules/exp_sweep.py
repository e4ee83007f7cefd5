"""Exponential sweep, as of a range test over magnitudes."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.schedules import Clock, Column, Number, Schedule, amount


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """start (end / start)^(t / (T - 1)): equal ratios from start to end."""

    start: Number = field(metadata=amount("value at the first update", above=0))
    end: Number = field(metadata=amount("value at the last update", above=0))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        return self.start * (self.end / self.start) ** (clock.t / max(1, clock.updates - 1))
