"""Several schedules in sequence, each with its own clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Nested, Schedule, key


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage."""

    fraction: float = field(metadata=key("part of the updates", above=0, high=1))
    schedule: Nested = field(metadata=key("schedule of the stage, on a clock of its own"))


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Schedules one after the other, each on its own clock, which starts at 0."""

    stages: tuple[Stage, ...] = field(
        metadata=key(
            "the stages, each with a `fraction` of the updates and a `schedule`; the fractions add "
            "up to 1"
        )
    )

    def __post_init__(self) -> None:
        total = sum(stage.fraction for stage in self.stages)
        if abs(total - 1) > 1e-6:
            raise UserError(f"stages: the fractions must add up to 1 (found {total:g}).")

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the values of each stage, as if its updates were a run."""
        ends = np.cumsum([stage.fraction for stage in self.stages])
        edges = [0, *np.rint(ends * clock.updates).astype(int)]
        edges[-1] = clock.updates
        return np.concatenate(
            [
                stage.schedule.values(clock.part(start, stop), seed)
                for stage, start, stop in zip(self.stages, edges, edges[1:], strict=False)
                if stop > start
            ]
        )

    @classmethod
    def amounts(cls, spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        """Yield what each stage says of the quantity's values."""
        for index, stage in enumerate(spec["stages"]):
            yield f"{where}.stages[{index}].schedule", stage["schedule"]
