"""One-cycle policy, as torch's OneCycleLR."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """One rise to the peak and one fall far below the start (as torch's OneCycleLR)."""

    peak: Number = field(metadata=amount("value at the peak"))
    start_div: float = field(default=25.0, metadata=key("it starts at peak / start_div", above=0))
    final_div: float = field(default=1e4, metadata=key("it ends at start / final_div", above=0))
    warm: float = field(
        default=0.3, metadata=key("part of the updates that rise", above=0, below=1)
    )
    shape: Literal["cosine", "linear"] = field(
        default="cosine", metadata=key("curve of the rise and the fall")
    )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        t, last, turn = clock.t, clock.updates - 1, self.warm * clock.updates - 1
        start = self.peak / self.start_div
        final = start / self.final_div
        # A rise of less than one update has no start: the run begins at the peak.
        up = t / turn if turn > 0 else np.ones_like(t)
        turn = max(0.0, turn)
        down = (t - turn) / (last - turn) if last > turn else np.zeros_like(t)
        rising = t <= turn
        origin, target = np.where(rising, start, self.peak), np.where(rising, self.peak, final)
        part = np.where(rising, up, down)
        if self.shape == "cosine":
            return target + (origin - target) * (1 + np.cos(np.pi * part)) / 2
        return origin + (target - origin) * part
