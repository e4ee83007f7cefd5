"""Triangular cyclical learning rates (arXiv 1506.01186, sections 3.1 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key
from cyclery.schedules._shared import check_either, powers

WINDOWS: dict[str, Callable[[Column], Column]] = {
    "triangle": lambda x: 1 - x,
    "welch": lambda x: 1 - x**2,
    "hann": lambda x: (1 + np.cos(np.pi * x)) / 2,
}


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Cyclical learning rate: low, high, low, in equal cycles, per update."""

    low: Number = field(metadata=amount("value at the ends of each cycle (base_lr)"))
    high: Number = field(metadata=amount("value in the middle of the first cycle (max_lr)"))
    cycles: float | None = field(
        default=None, metadata=key("number of cycles in the run; or give `step_epochs`", above=0)
    )
    step_epochs: float | None = field(
        default=None, metadata=key("epochs in half a cycle; or give `cycles`", above=0)
    )
    window: Literal["triangle", "welch", "hann"] = field(
        default="triangle", metadata=key("shape of the rise and fall")
    )
    mode: Literal["triangular", "triangular2", "exp_range", "exp_range_bounds"] = field(
        default="triangular",
        metadata=key(
            "`triangular2` halves the amplitude after a cycle; `exp_range` shrinks the amplitude "
            "by gamma^t (libraries); `exp_range_bounds` shrinks both bounds (paper's text)"
        ),
    )
    gamma: float | None = field(
        default=None, metadata=key("factor per update, for the exp_range modes", above=0)
    )
    end: float | None = field(
        default=None, metadata=key("gamma^T instead of `gamma`, T = updates in all", above=0)
    )

    def __post_init__(self) -> None:
        check_either(self, "cycles", "step_epochs")
        if self.mode in ("exp_range", "exp_range_bounds"):
            check_either(self, "gamma", "end")
            return
        for name in ("gamma", "end"):
            if getattr(self, name) is not None:
                raise UserError(
                    f"{name}: mode {self.mode!r} has no {name} (modes that have: exp_range, "
                    f"exp_range_bounds; found {getattr(self, name)})."
                )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update."""
        t = clock.t
        if self.cycles is not None:
            step = clock.updates / (2 * self.cycles)
        else:
            step = (self.step_epochs or 0) * clock.pace
        cycle = np.floor(1 + t / (2 * step))
        rise = WINDOWS[self.window](np.minimum(1, np.abs(t / step - 2 * cycle + 1)))
        amplitude = (self.high - self.low) * rise
        if self.mode == "triangular2":
            return self.low + amplitude / 2 ** (cycle - 1)
        if self.mode == "triangular":
            return self.low + amplitude
        shrink = powers(clock, self.gamma, self.end)
        if self.mode == "exp_range_bounds":
            return shrink * (self.low + amplitude)
        return self.low + amplitude * shrink
