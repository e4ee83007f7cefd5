"""A schedule again and again: restarts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Nested, Schedule, key


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """A schedule several times in sequence, each on its own clock, which starts at 0.

    Of a cosine these are warm restarts, as torch's CosineAnnealingWarmRestarts.
    """

    times: int = field(metadata=key("how often, each as long as the others", low=1))
    schedule: Nested = field(metadata=key("what is repeated"))

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the values of each time; a UserError where there are fewer updates than times."""
        if self.times > clock.updates:
            raise UserError(
                f"times: must be at most the {clock.updates} updates there are (found "
                f"{self.times})."
            )
        edges = np.rint(clock.updates * np.arange(self.times + 1) / self.times).astype(int).tolist()
        parts = (clock.part(start, stop) for start, stop in pairwise(edges))
        try:
            return np.concatenate([self.schedule.values(part, seed) for part in parts])
        except UserError as error:
            raise UserError(f"schedule.{error}") from None

    @classmethod
    def amounts(cls, spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        """Yield what is repeated."""
        yield f"{where}.schedule", spec["schedule"]
