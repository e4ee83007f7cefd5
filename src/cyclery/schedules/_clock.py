"""The clock of a run: in which epoch each update falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cyclery.common.errors import UserError

Column: TypeAlias = NDArray[np.float64]
"""One value per update."""


@dataclass(frozen=True)
class Clock:
    """The time of every update: update t is in epoch ``epoch[t]`` of ``epochs``.

    ``pace`` is the mean number of updates in an epoch; a stage inherits it from the whole run.
    """

    epoch: NDArray[np.int64]
    epochs: int
    stage_pace: float | None = None

    @property
    def updates(self) -> int:
        """How many updates there are."""
        return len(self.epoch)

    @property
    def starts(self) -> list[int]:
        """The first update of every epoch that has one."""
        return np.unique(self.epoch, return_index=True)[1].tolist()

    @property
    def t(self) -> Column:
        """Index of each update."""
        return np.arange(self.updates, dtype=np.float64)

    @property
    def pace(self) -> float:
        """Updates per epoch, on average."""
        return self.stage_pace or self.updates / self.epochs

    def part(self, start: int, stop: int) -> Clock:
        """Return the clock of updates start..stop-1, counted from zero."""
        epoch = self.epoch[start:stop] - self.epoch[start]
        return Clock(epoch, int(epoch[-1]) + 1, self.pace)


def clock_for(batches: NDArray[np.int64], n: int) -> tuple[Clock, NDArray[np.int64]]:
    """Return the clock of epochs over ``n`` samples, and the whole batches in each epoch.

    ``batches`` is the batch size of each epoch; what is left of the samples is dropped.
    """
    batches = np.asarray(batches, dtype=np.int64)
    if len(batches) == 0:
        raise UserError("epochs: 0 is not allowed; allowed: a whole number >= 1.")
    if batches.max() > n:
        raise UserError(f"batch: {batches.max()} is more than the {n} training samples")
    steps = n // batches
    return Clock(np.repeat(np.arange(len(batches)), steps), len(batches)), steps
