"""Sigmoid ramp-down of a rate: Mean Teacher (arXiv 1703.01780 and its code)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """value, times exp(-12.5 (1 - x)^2) in a last part, x from 1 to 0 (Mean Teacher)."""

    value: Number = field(metadata=amount("value before the ramp"))
    over: float = field(
        metadata=key("the last part of the updates, in which it falls", above=0, high=1)
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        x = np.minimum(1, (clock.updates - clock.t) / (self.over * clock.updates))
        return self.value * np.exp(-12.5 * (1 - x) ** 2)
