"""Several schedules in sequence, each with its own clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from cyclery.common.errors import UserError
from cyclery.schedules import Clock, Column, Nested, Schedule, key


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage."""

    fraction: float | None = field(
        default=None, metadata=key("part of the updates", above=0, high=1)
    )
    updates: int | None = field(
        default=None, metadata=key("how many updates, instead of `fraction`", low=1)
    )
    schedule: Nested = field(metadata=key("schedule of the stage, on a clock of its own"))


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Schedules one after the other, each on its own clock, which starts at 0."""

    stages: tuple[Stage, ...] = field(
        metadata=key(
            "the stages, each with a `schedule` and a `fraction` of the updates or a number of "
            "`updates`; together they are the whole run, and the last takes the rest where it says "
            "neither"
        )
    )

    def __post_init__(self) -> None:
        for index, stage in enumerate(self.stages):
            given = [stage.fraction, stage.updates]
            if None not in given:
                raise UserError(
                    f"stages[{index}]: give either `fraction` or `updates` (found both)."
                )
            if given == [None, None] and index < len(self.stages) - 1:
                raise UserError(
                    f"stages[{index}]: give either `fraction` or `updates` (found neither); only "
                    "the last stage may leave out both, and takes the rest."
                )
        total = sum(stage.fraction or 0.0 for stage in self.stages)
        if all(stage.fraction is not None for stage in self.stages):
            if abs(total - 1) > 1e-6:
                raise UserError(f"stages: the fractions must add up to 1 (found {total:g}).")
        elif total > 1 - 1e-6:
            raise UserError(
                "stages: the fractions must add up to less than 1, or nothing is left to the other "
                f"stages (found {total:g})."
            )

    def column(self, clock: Clock, seed: int) -> Column:
        """Return the values of each stage, as if its updates were a run.

        Raises a UserError where the stages are not as long as the run.
        """
        found = []
        edges = self._edges(clock.updates)
        for index, (start, stop) in enumerate(pairwise(edges)):
            if stop > start:
                schedule = self.stages[index].schedule
                try:
                    found.append(schedule.values(clock.part(start, stop), seed))
                except UserError as error:
                    raise UserError(f"stages[{index}].schedule.{error}") from None
        return np.concatenate(found)

    def _edges(self, updates: int) -> list[int]:
        """Return the update that each stage begins at, and the end of the run."""
        ends = np.cumsum([stage.fraction or 0.0 for stage in self.stages]) * updates
        ends += np.cumsum([stage.updates or 0 for stage in self.stages])
        edges = [0, *np.rint(ends).astype(int).tolist()]
        last = self.stages[-1]
        if last.fraction is None and last.updates is None:
            if (before := edges[-2]) >= updates:
                raise UserError(
                    f"stages: the last stage takes the rest of the {updates} updates, but those "
                    f"before it have {before}; shorten them."
                )
        elif edges[-1] != updates and any(stage.updates for stage in self.stages):
            raise UserError(
                f"stages: must have {updates} updates in all, as many as there are (found "
                f"{edges[-1]}); change them, or let the last stage take the rest by leaving out "
                "its `updates` or `fraction`."
            )
        edges[-1] = updates
        return edges

    @classmethod
    def amounts(cls, spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        """Yield what each stage says of the quantity's values."""
        for index, stage in enumerate(spec["stages"]):
            yield f"{where}.stages[{index}].schedule", stage["schedule"]
