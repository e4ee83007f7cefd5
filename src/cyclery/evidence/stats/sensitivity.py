"""Sensitivity analyses shown next to a verdict; they do not decide it.

- ``p_sign_flip``: the permutation test of paired data, which flips the sign of each unit's contrast
  (Fisher 1935). It assumes that contrasts are symmetric about the margin, not that they are normal.
  Exact up to 15 units; beyond, 9,999 random flips, always the same. With n units it cannot be
  below 2 / 2**n, so five never reach .05.
- ``improvement``: the share of units whose contrast favours the claim, ties counting half: the
  probability of improvement of Agarwal et al. (2021), for pairs.
- ``iqm``: the interquartile mean (of the same authors) of every arm's metric over the seeds: the
  mean without a quarter of the values, rounded down, at either end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from cyclery.evidence.stats import contrasts
from cyclery.evidence.stats.paired_tests import ROUNDING, Floats
from cyclery.evidence.stats.pairing import Pairs
from cyclery.records.claims import Sensitivity, Test

EXACT = 15
RESAMPLES = 9_999


def figures(pairs: Pairs, test: Test, margin: float) -> Sensitivity:
    """Return the figures of one comparison with data; ``iqm`` in the order of its columns."""
    samples = [list(sample.values()) for sample in contrasts.samples(pairs)]
    return {
        # All steps of an ordering must hold, so the largest p is that of the whole.
        "p_sign_flip": max(sign_flip(sample, test, margin) for sample in samples),
        "improvement": improvement(pairs.by_unit),
        # Of each column's metric over the seeds, in its unit.
        "iqm": [interquartile_mean(column) for column in zip(*pairs.figures, strict=True)],
    }


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of one or more values."""
    return float(scipy_stats.trim_mean(values, 0.25))


def improvement(values: ArrayLike) -> float:
    """Return the share of values above 0, those at 0 counting half."""
    x = np.asarray(values, dtype=np.float64)
    return float(np.mean((x > 0) + 0.5 * (x == 0)))


def sign_flip(values: ArrayLike, test: Test, margin: float = 0.0) -> float:
    """Return the p-value of the sign-flip test of the mean, of the same null as the t test."""
    x = np.asarray(values, dtype=np.float64)
    if test == "superiority":
        above, below = _tails(x - margin)
        return min(1.0, 2 * min(above, below))
    above, _ = _tails(x + margin)
    if test == "non-inferiority":
        return above
    return max(above, _tails(x - margin)[1])


@cache
def _random_signs(size: int) -> Floats:
    return np.random.default_rng(0).choice([-1.0, 1.0], (RESAMPLES, size))


def _tails(x: Floats) -> tuple[float, float]:
    """Return the shares of flipped samples whose sum is at least, and at most, the one found."""
    exact = x.size <= EXACT
    if exact:
        sums = np.zeros(1)
        for value in x:
            sums = np.concatenate([sums + value, sums - value])
    else:
        sums = _random_signs(x.size) @ x
    found = float(x.sum())
    near = ROUNDING * float(np.abs(x).sum())
    more = 0 if exact else 1  # the sample found is one of the random ones
    above = (int((sums >= found - near).sum()) + more) / (len(sums) + more)
    below = (int((sums <= found + near).sum()) + more) / (len(sums) + more)
    return above, below
