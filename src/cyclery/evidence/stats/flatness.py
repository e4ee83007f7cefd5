"""How flat a metric is over a grid of settings, and the test of its differences.

One side of a comparison is a list of arms, the points of a grid. Of a seed its flatness is

- ``share``: the share of points whose metric is within some distance of the side's best point;
- ``mean``: the mean over the grid minus the best point, at most 0.

Both depend on the spread of single runs, too: of two sides that are equally flat on average the
noisier one looks less flat.

Such figures are far from normal, and a share has few values. So from ten seeds on two intervals
must clear a bound, the t interval and that of a bootstrap over seeds: p is the larger one of the
two, and an end the outer one. Below ten seeds resampling does not know the tails, and the t
interval decides alone, as it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Literal, TypeAlias

import numpy as np

from cyclery.evidence.stats.paired_tests import BOOTSTRAP_FROM, ROUNDING, Floats, OneMean, estimate
from cyclery.records.claims import Interval, Test

By: TypeAlias = Literal["share", "mean"]
RESAMPLES = 2000


def flatness(values: Floats, by: By, within: float, smaller_is_better: bool = False) -> Floats:
    """Return how flat each grid [..., points] of a metric is, [...]."""
    y = -values if smaller_is_better else values
    best = y.max(axis=-1, keepdims=True)
    if by == "mean":
        below: Floats = (y - best).mean(axis=-1)
        return below
    # At the distance itself: within, whatever subtracting has rounded.
    near: Floats = (best - y <= within + 1e-9).mean(axis=-1)
    return near


@cache
def resampling(n: int) -> Floats:
    """Return the weights [resamples, n] of the values in each resample, always the same."""
    counts = np.random.default_rng(0).multinomial(n, [1 / n] * n, RESAMPLES)
    return np.asarray(counts / n, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Resampled(OneMean):
    """The mean of one sample, above or below a bound only where t test and bootstrap both say so.

    ``means`` are those of the resamples, in ascending order; None where the t test is alone. The
    bootstrap is the percentile one: its p-value is the share of resamples whose mean is not beyond
    the bound.
    """

    means: Floats | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Resampled:
        """Return the mean of values, one for each independent unit."""
        found = estimate(values)
        if found.n < BOOTSTRAP_FROM or found.se is None:
            return cls(found, None)
        return cls(found, np.sort(resampling(found.n) @ np.asarray(values, dtype=np.float64)))

    @property
    def _rounding(self) -> float:
        assert self.means is not None, "there are no resamples"
        return ROUNDING * max(1.0, float(np.abs(self.means).max()))

    def tail(self, bound: float, above: bool) -> float:
        """Return the larger one-sided p-value of an effect above, or below, a bound."""
        usual = self.estimate.tail(bound, above)
        if self.means is None:
            return usual
        beyond = self.means - bound if above else bound - self.means
        return max(usual, float((beyond <= self._rounding).mean()))

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the outer ends of both intervals; None without a spread."""
        usual = self.estimate.limits(lower, upper)
        if self.means is None or usual is None:
            return usual
        low = float(self.means[place(lower)]) - self._rounding
        high = float(self.means[-1 - place(upper)]) + self._rounding
        return min(usual[0], low), max(usual[1], high)

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds at which the t test would decide, or None."""
        return self.estimate.seeds_to_settle(test, margin, alpha)


def place(error: float) -> int:
    """Return the place, from 0, of the resampled mean that fewer than this share lie before."""
    return max(0, ceil(error * RESAMPLES) - 1)
