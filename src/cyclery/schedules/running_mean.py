"""Decay of averaged weights (EMA): Mean Teacher (arXiv 1703.01780 and its code)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.schedules import Clock, Column, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """min(1 - 1 / (n + 1), end) at update n = 1, 2, ...: a decay that makes a true mean at first.

    An average of weights with this decay is the mean of the initial weights and of those after
    every update so far, until ``end`` is reached (Mean Teacher, the PyTorch code). With ``delay``
    d it is min(n / (n + d), end), which forgets the first weights sooner: TensorFlow's averages
    have 9 (De et al. 2022, arXiv 2204.13650).
    """

    end: float = field(
        metadata=amount("decay that it stays at; 1 means the true mean throughout", low=0, high=1)
    )
    delay: float | None = field(
        default=None, metadata=key("d in n / (n + d); without it 1, the true mean", low=1)
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        # The initial weights count as the first that are averaged, so the first update weighs 1/2.
        if self.delay is None:
            return np.minimum(1 - 1 / (clock.t + 2), self.end)
        return np.minimum((clock.t + 1) / (clock.t + 1 + self.delay), self.end)
