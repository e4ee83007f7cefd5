"""Random-effects pooling of several experiments (DerSimonian and Laird 1986).

Its usual normal interval is far too short for a handful of experiments: simulated with 2 to 6
experiments and 3 to 10 seeds, it calls 8 to 17 % of true nulls significant where their effects
differ, instead of 2.5 %. So the verdict is held to three corrections, each known from simulation
(``tests/evidence/test_stats.py``) to be needed:

- the t law with one degree of freedom per experiment but one, and the variance of Knapp and
  Hartung (2003) where it is larger;
- seeds that two experiments share (same split, same initial weights, perhaps the same baseline
  runs) correlate their effects: positive covariances enter the variance;
- one precise experiment can take nearly all the weight where tau^2 was estimated as 0. The
  unweighted mean with its own t interval does not have that flaw, so the interval of the verdict
  covers both, and p is the larger of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from scipy import stats

from cyclery.evidence.stats.paired_tests import (
    ALPHA,
    MOST_SEEDS,
    POWER,
    Estimate,
    Floats,
    estimate,
)
from cyclery.records.claims import Interval, Test


@dataclass(frozen=True)
class Pool:
    """Random-effects mean over k experiments; ``effect`` is the DerSimonian-Laird mean."""

    effect: float
    se: float
    tau2: float
    q: float
    weights: tuple[float, ...]
    estimates: tuple[Estimate, ...]
    within: float

    @property
    def k(self) -> int:
        """Return the number of experiments."""
        return len(self.weights)

    @property
    def estimate(self) -> Estimate:
        """Return the weighted mean."""
        return self.estimates[0]

    @property
    def ways(self) -> int:
        """Return 1: both means are estimates of one effect."""
        return 1

    def tail(self, bound: float, above: bool) -> float:
        """Return the larger one-sided p-value of the weighted and the unweighted mean."""
        return max(est.tail(bound, above) for est in self.estimates)

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the ends that cover the intervals of the weighted and the unweighted mean."""
        both = [est.limits(lower, upper) for est in self.estimates]
        found = [ci for ci in both if ci is not None]
        if len(found) < len(both):
            return None
        return min(low for low, _ in found), max(high for _, high in found)

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds per experiment that would decide the pooled claim, or None."""
        return seeds_to_settle_pool(self, test, margin, alpha)


def der_simonian_laird(effects: Floats, variances: Floats) -> tuple[float, float, float, float]:
    """Return the textbook mean, its standard error, tau^2 and Cochran's Q."""
    w = 1 / variances
    fixed = float(w @ effects / w.sum())
    q = float(w @ (effects - fixed) ** 2)
    spare = float(w.sum() - (w**2).sum() / w.sum())
    tau2 = max(0.0, (q - (len(effects) - 1)) / spare) if len(effects) > 1 else 0.0
    w = 1 / (variances + tau2)
    return float(w @ effects / w.sum()), float(1 / sqrt(w.sum())), tau2, q


def _covariances(samples: Sequence[Mapping[int, float]]) -> Floats:
    """Return the covariances [k, k] of the experiments' means over seeds that they share.

    Negative ones are taken as 0, which can only widen the interval; the diagonal is 0.
    """
    k = len(samples)
    out = np.zeros((k, k))
    for i in range(k):
        for j in range(i):
            common = sorted(samples[i].keys() & samples[j].keys())
            if len(common) < 2:
                continue
            a = np.array([samples[i][s] for s in common])
            b = np.array([samples[j][s] for s in common])
            shared = (a - a.mean()) @ (b - b.mean()) / (len(common) - 1)
            # cov of two means of n_i and n_j values of which len(common) are paired
            scale = len(common) / (len(samples[i]) * len(samples[j]))
            out[i, j] = out[j, i] = max(0.0, float(shared)) * scale
    return out


def pool(samples: Sequence[Mapping[int, float]]) -> Pool | None:
    """Pool experiments, each given as its oriented differences by seed.

    An experiment whose differences are all alike gets the smallest variance of the others.
    None where no experiment has an estimable spread, or where one has fewer than 2 seeds.
    """
    singles = [estimate(list(sample.values())) for sample in samples]
    known = [est.se**2 for est in singles if est.se is not None]
    if not known or any(est.n < 2 for est in singles):
        return None
    y = np.array([est.effect for est in singles])
    v = np.array([min(known) if est.se is None else est.se**2 for est in singles])
    k, n = len(singles), min(est.n for est in singles)
    mean, se, tau2, q = der_simonian_laird(y, v)
    if k == 1:
        return Pool(mean, se, tau2, q, (1.0,), (singles[0],), float(v[0]))
    w = 1 / (v + tau2)
    w /= w.sum()
    shared = _covariances(samples)
    df = min(k - 1, n - 1)
    hartung = float(w @ (y - mean) ** 2) / (k - 1)
    se_dl = sqrt(max(se**2 + float(w @ shared @ w), hartung))
    within = float(v.sum() + shared.sum()) / k**2
    se_plain = sqrt(max(within, float(y.var(ddof=1)) / k))
    return Pool(
        mean, se, tau2, q, tuple(map(float, w)),
        (Estimate(mean, se_dl, df, n, None), Estimate(float(y.mean()), se_plain, df, n, None)),
        within,
    )  # fmt: skip


def seeds_to_settle_pool(
    found: Pool, test: Test, margin: float, alpha: float = ALPHA, cap: int = MOST_SEEDS
) -> int | None:
    """Return the seeds per experiment that would decide the pooled claim, or None.

    Seeds shrink only the part of the variance that comes from seeds; where the experiments'
    effects themselves differ too much, no number of seeds settles it.
    """
    plain = found.estimates[-1]
    bounds = {"superiority": (margin,), "equivalence": (margin, -margin)}.get(test, (-margin,))
    distance = min(abs(plain.effect - bound) for bound in bounds)
    level = alpha if test == "equivalence" else min(alpha, ALPHA) / 2
    df = max(1, found.k - 1) if found.k > 1 else plain.df
    reach = float(stats.t.ppf(1 - level, df) + stats.t.ppf(POWER, df))
    left = (distance / reach) ** 2 - (found.tau2 / found.k if found.k > 1 else 0.0)
    if left <= 0:
        return None
    n = ceil(found.within * plain.n / left)
    return n if n <= cap else None
