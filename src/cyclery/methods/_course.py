"""The course of a run: what each update takes, as it is known before the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cyclery.schedules import Column


@dataclass(frozen=True)
class Course:
    """What a method may know of a run before it begins.

    ``samples`` are those of the pool of its first stream (0 where a hook fills it), ``columns`` the
    values of all quantities, float64 [updates] each, and of ``batch``, by name.
    """

    samples: int
    columns: Mapping[str, Column]

    @classmethod
    def of(
        cls,
        samples: int,
        columns: Mapping[str, Column],
        batches: ArrayLike,
        steps: NDArray[np.int64],
    ) -> Course:
        """Return the course of a run with these quantities, by sizes and steps of epochs [E]."""
        sizes = np.repeat(np.asarray(batches, np.float64), steps)
        return cls(samples, {**columns, "batch": sizes})
