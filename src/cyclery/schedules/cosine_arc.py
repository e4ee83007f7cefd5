"""The cosine learning-rate decay of FixMatch (arXiv 2001.07685, section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """peak cos(pi arc t / T): the first part of a cosine, which need not reach 0 (FixMatch)."""

    peak: Number = field(metadata=amount("value at the first update"))
    arc: float = field(
        default=7 / 16,
        metadata=key("the part of half a period; at 1/2 it falls to 0", above=0, high=0.5),
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        return self.peak * np.cos(np.pi * self.arc * clock.t / clock.updates)
