"""Exponential decay or growth."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key
from cyclery.schedules._shared import check_either, powers


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """start * gamma^t, or towards + (start - towards) * gamma^t."""

    start: Number = field(metadata=amount("value at the first update"))
    gamma: float | None = field(
        default=None, metadata=key("factor per update; or give `end`", above=0)
    )
    end: float | None = field(
        default=None,
        metadata=key(
            "gamma^T, the share of `start` left after T updates; or give `gamma`", above=0
        ),
    )
    towards: Number | None = field(
        default=None,
        metadata=amount("value from which the distance shrinks or grows; without it 0"),
    )

    def __post_init__(self) -> None:
        check_either(self, "gamma", "end")

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        factor = powers(clock, self.gamma, self.end)
        if self.towards is None:
            return self.start * factor
        return self.towards + (self.start - self.towards) * factor
