"""General Cyclical Training (arXiv 2202.08835 and its code)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Number, Schedule, amount, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Easy, hard, easy by epoch: (1 - eta) hard + eta easy, eta as in General Cyclical Training.

    Always constant within an epoch, so its ``clock`` has no effect.
    """

    BY_EPOCH = True
    BATCH = True
    easy: Number = field(metadata=amount("value at the easy ends (eta = 1)"))
    hard: Number = field(metadata=amount("value in the hard middle (eta = 0)"))
    factor: float = field(
        default=2.0,
        metadata=key(
            "the hardest epoch is (E - 1) / factor: 2 is symmetric; one-way orders always take 1",
            low=1.0,
        ),
    )
    order: Literal["easy-hard-easy", "hard-easy-hard", "easy-hard", "hard-easy", "shuffled"] = (
        field(
            default="easy-hard-easy",
            metadata=key(
                "`hard-easy-hard` swaps the two values; `easy-hard` and `hard-easy` go one way; "
                "`shuffled` takes the values of `easy-hard-easy` in a random order of the epochs"
            ),
        )
    )
    clamp: bool = field(
        default=True, metadata=key("keep eta within 0..1 (it leaves it in cool-down epochs)")
    )
    cooldown: int = field(
        default=0,
        metadata=key(
            "last epochs that E does not count (1 in the official temperature code)",
            low=0,
        ),
    )

    def __post_init__(self) -> None:
        if self.order in ("easy-hard", "hard-easy"):
            # Runs that are the same have one key, whatever factor is written.
            object.__setattr__(self, "factor", 1.0)

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the value at every update; a UserError where no epoch is left to cycle in."""
        counted = clock.epochs - self.cooldown
        if counted < 1:
            raise UserError(
                f"cooldown: {self.cooldown} leaves none of {clock.epochs} epochs to cycle in"
            )
        e = np.arange(clock.epochs)
        if self.order == "hard-easy":
            e = counted - 1 - e
        weight = eta(e, counted, self.factor)
        if self.clamp:
            weight = weight.clip(0, 1)
        easy, hard = self.easy, self.hard
        if self.order == "hard-easy-hard":
            easy, hard = hard, easy
        values = (1 - weight) * hard + weight * easy
        if self.order == "shuffled":
            values = np.random.default_rng([seed, *b"cycle"]).permutation(values)
        return values[clock.epoch]


def eta(e: ArrayLike, epochs: int, factor: float) -> Column:
    """Return the phase weight of epoch ``e`` of ``epochs``: 1 is easy, 0 is hard; not clamped."""
    e = np.asarray(e, dtype=np.float64)
    if epochs == 1:
        return np.ones_like(e)
    x = factor * e / (epochs - 1)
    rise = (x - 1) / (factor - 1) if factor != 1 else np.zeros_like(e)
    return np.where(factor * e < epochs, 1 - x, rise)
