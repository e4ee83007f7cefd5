"""Update rate of a running average: SoTeacher (arXiv 2206.06661, its code)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Schedule, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """1 in epoch 1, then 1 / (k - 1 + first) in epoch k: how far an average moves to a new value.

    An average of one value an epoch that moves by this rate is the mean of the values so far.
    Always constant within an epoch, so its ``clock`` has no effect.
    """

    BY_EPOCH = True
    first: float = field(
        default=1.0,
        metadata=key("how many times the first value counts (2 in SoTeacher's code)", low=0),
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        # An average that holds nothing yet becomes its first value, however much that counts later.
        return 1 / np.where(clock.epoch == 0, 1.0, clock.epoch + self.first)
