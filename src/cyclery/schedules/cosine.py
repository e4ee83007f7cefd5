"""Cosine annealing, as torch's CosineAnnealingLR."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Half a cosine from peak to end, after an optional linear warm-up."""

    peak: Number = field(metadata=amount("value where the cosine begins"))
    end: Number = field(
        default=0.0, metadata=amount("value that the cosine reaches after the last update")
    )
    warmup_epochs: float = field(
        default=0.0, metadata=key("length of the warm-up in epochs", low=0)
    )
    warmup_start: Number = field(default=0.0, metadata=amount("value at the start of the warm-up"))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where all of the run is warm-up."""
        warm = self.warmup_epochs * clock.pace
        if warm >= clock.updates:
            raise UserError(
                f"warmup_epochs: {self.warmup_epochs:g} of {clock.epochs} epochs leave none for "
                "the cosine"
            )
        phase = np.maximum(0, clock.t - warm) / (clock.updates - warm)
        values = self.end + (self.peak - self.end) * (1 + np.cos(np.pi * phase)) / 2
        if warm == 0:
            return values
        rise = self.warmup_start + (self.peak - self.warmup_start) * clock.t / warm
        return np.where(clock.t < warm, rise, values)
