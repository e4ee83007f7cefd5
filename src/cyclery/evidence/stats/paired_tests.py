"""Paired t tests against a margin: intervals, Holm correction, power and sample size.

Effects are oriented so that the claim is positive, and m is the margin. The three tests are

- superiority: two-sided t test of effect = m, so that p < .05 exactly when the 95 % interval
  excludes m;
- equivalence: two one-sided t tests (Schuirmann 1987), p is the larger one, so that p < .05
  exactly when the 90 % interval lies inside (-m, m);
- non-inferiority: one-sided t test of effect <= -m.

Each has an opposite, by which a claim is contradicted: of superiority the same two-sided test, of
equivalence a test of |effect| <= m against both sides, each at half of the error, of
non-inferiority the one-sided test of effect >= -m.

The t interval is the interval of the verdict at every n, because p and interval then agree. The
bias-corrected and accelerated bootstrap interval (Efron 1987) is a second opinion from n = 10 on.
A sample without an estimable spread (fewer than two differences, or all of them alike) has no
interval, and p = 1: it can neither support nor refute a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite, sqrt
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from cyclery.records.claims import Interval, Test

Floats: TypeAlias = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 10_000
BOOTSTRAP_FROM = 10
# Means and sums that differ by less than this part of their size differ by rounding, and are ties.
ROUNDING = 1e-12


class Source(Protocol):
    """An estimate with one-sided tests on either side, from which a verdict is read.

    ``ways`` is the number of means of which any one below a bound refutes the claim: the error of
    the upper side is divided by it, before looks share it. 1 for all but an ordering.
    """

    @property
    def effect(self) -> float:
        """Return the effect."""

    @property
    def estimate(self) -> Estimate:
        """Return the mean that is reported."""

    @property
    def ways(self) -> int:
        """Return how many means may refute the claim."""

    def tail(self, bound: float, above: bool) -> float:
        """Return the one-sided p-value of an effect above, or below, a bound.

        For ``ways`` means, that of the one furthest below, not corrected for their number.
        """

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the interval that leaves out an error at either end; None without a spread."""

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds that would decide the claim at this effect and spread, or None."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error (None where the spread cannot be estimated)."""

    effect: float
    se: float | None
    df: float
    n: int
    sd: float | None

    @property
    def estimate(self) -> Estimate:
        """Return itself."""
        return self

    @property
    def ways(self) -> int:
        """Return 1: there is one mean."""
        return 1

    def tail(self, bound: float, above: bool) -> float:
        """Return the one-sided p-value of the t test; 1 without a standard error."""
        if self.se is None:
            return 1.0
        t = (self.effect - bound) / self.se
        return _tail(t if above else -t, self.df)

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the ends of the t interval; None without a standard error."""
        if self.se is None:
            return None
        low, high = _quantile(lower, self.df), _quantile(upper, self.df)
        return self.effect + low * self.se, self.effect - high * self.se

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the pairs that would decide the claim, or None."""
        return seeds_to_settle(self.effect, self.sd, margin, test, alpha)


@dataclass(frozen=True, eq=False)
class OneMean:
    """One mean that is not judged by the t test alone."""

    estimate: Estimate

    @property
    def effect(self) -> float:
        """Return the mean."""
        return self.estimate.effect

    @property
    def ways(self) -> int:
        """Return 1: there is one mean."""
        return 1


def estimate(values: ArrayLike) -> Estimate:
    """Return the mean of one sample of finite values, here usually paired differences.

    Differences that agree to 10 digits count as alike: subtracting accuracies leaves rounding
    errors of 1e-16, and a t statistic made of those would be astronomical.

    Raises:
        ValueError: the sample is empty or not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError("an estimate needs at least one value, all finite")
    n = int(x.size)
    if n < 2:
        return Estimate(float(x[0]), None, 0, n, None)
    if np.ptp(x) <= 1e-10 * max(1.0, float(np.abs(x).max())):
        return Estimate(float(x[0]), None, n - 1, n, 0.0)
    sd = float(x.std(ddof=1))
    return Estimate(float(x.mean()), sd / sqrt(n), n - 1, n, sd)


@cache
def _quantile(probability: float, df: float) -> float:
    """Return the quantile of the t law."""
    # scipy returns plus infinity for 0.
    return float(special.stdtrit(df, probability)) if probability > 0 else -inf


def _tail(t: float, df: float) -> float:
    """Return the probability of more than t under the t law."""
    return float(special.stdtr(df, -t))


def _same(error: float) -> float:
    return error


def interval(
    source: Source, level: float = 0.95, nominal: Callable[[float], float] = _same
) -> Interval | None:
    """Return the two-sided interval, or None without a standard error.

    ``nominal`` turns a one-sided error into what one look may spend of it.
    """
    tail = (1 - level) / 2
    return source.limits(nominal(tail), nominal(tail / source.ways))


def p_value(
    source: Source, test: Test, margin: float = 0.0, error: Callable[[float], float] = _same,
    above: bool | None = None, opposite: bool = False,
) -> float:  # fmt: skip
    """Return the p-value of one test (see the module); 1 without a standard error.

    Args:
        source: what is estimated.
        test: the test.
        margin: its margin.
        error: turns the one-sided p-value of a look's data into the error of all looks.
        above: the side of a two-sided test, which is that of the effect if not given.
        opposite: whether it is that of the opposite test, by which a claim is contradicted.
    """

    def side(bound: float, above: bool) -> float:
        p = error(source.tail(bound, above))
        return p if above else min(1.0, source.ways * p)

    if test == "superiority":
        return min(1.0, 2 * side(margin, source.effect > margin if above is None else above))
    if test == "equivalence":
        if opposite:
            # Either side can refute it, and with a small margin both by chance.
            return min(1.0, 2 * min(side(margin, True), side(-margin, False)))
        return max(side(-margin, True), side(margin, False))
    return side(-margin, not opposite)


def supports(test: Test, margin: float, ci95: Interval, ci90: Interval) -> bool:
    """Return whether the interval lies where the claim says."""
    if test == "equivalence":
        return -margin < ci90[0] and ci90[1] < margin
    return ci95[0] > (margin if test == "superiority" else -margin)


def refutes(test: Test, margin: float, ci95: Interval, ci90: Interval) -> bool:
    """Tell whether the interval lies wholly where the claim says it does not."""
    if test == "equivalence":
        return ci90[0] > margin or ci90[1] < -margin
    return ci95[1] < (margin if test == "superiority" else -margin)


def bca(values: ArrayLike, level: float = 0.95, resamples: int = 2000) -> Interval | None:
    """Return the BCa bootstrap interval of the mean, always the same for the same values.

    None below 10 values, where resampling does not know the tails, and where all are alike. The
    correction of bias counts the resamples whose mean is that of the sample as half below it.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < BOOTSTRAP_FROM or estimate(x).se is None:
        return None
    step = ROUNDING * np.abs(x).max()

    def mean(values: Floats, axis: int) -> Floats:
        means: Floats = np.rint(np.mean(values, axis=axis) / step) * step
        return means

    result = stats.bootstrap(
        (x,), mean, confidence_level=level, n_resamples=resamples, method="BCa",
        vectorized=True, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    low, high = float(result.low), float(result.high)
    return (low, high) if isfinite(low) and isfinite(high) else None


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the given order.

    Args:
        p: p-values that were computed.
        family: number of comparisons declared; those without a p-value count as p = 1.
    """
    size = max(len(p), family or 0)
    adjusted, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (size - rank) * p[i]))
        adjusted[i] = running
    return adjusted


@cache
def _spread_nodes(df: int) -> tuple[Floats, Floats]:
    """Return s / sigma at Gauss-Legendre nodes of its probability, with their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    ratio = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, df) / df)
    return np.asarray(ratio, dtype=np.float64), weights / 2


def _chance(n: int, low: float, high: float, alpha: float) -> float:
    """Return the chance that a one-sided level-alpha interval clears both of two bounds.

    Given s, the mean is normal, so the noncentral t integral has one dimension. ``low`` and
    ``high`` are the distances of the true effect from the bounds, in standard deviations;
    infinite where there is no such bound.
    """
    ratio, weights = _spread_nodes(n - 1)
    reach = _quantile(1 - alpha, n - 1) * ratio
    inside = stats.norm.cdf(low * sqrt(n) - reach) - stats.norm.cdf(reach - high * sqrt(n))
    return float(np.clip(inside, 0, 1) @ weights)


def power(
    n: int, effect: float, sd: float, margin: float, test: Test, alpha: float = ALPHA
) -> float:
    """Return the probability of "reproduced" with n normal pairs, true effect and sd given.

    ``alpha`` is the level that p must reach, e.g. .05 over the size of a Holm family; the
    interval of the verdict stays the one at .05.
    """
    above, below = (effect + margin) / sd, (effect - margin) / sd
    if test == "superiority":
        return _chance(n, below, np.inf, alpha / 2)
    if test == "equivalence":
        return _chance(n, above, -below, alpha)
    return _chance(n, above, np.inf, min(alpha, ALPHA / 2))


def seeds_to_settle(
    effect: float, sd: float | None, margin: float, test: Test, alpha: float = ALPHA,
    wanted: float = POWER, cap: int = MOST_SEEDS,
) -> int | None:  # fmt: skip
    """Return the pairs that decide the claim, for or against, if effect and sd are the truth.

    None where no number up to ``cap`` gives the wanted power: the effect lies at the bound, or
    too near to it, or the spread is unknown.
    """
    if not sd:
        return None
    holds = abs(effect) < margin if test == "equivalence" else effect > margin
    if test == "non-inferiority":
        holds = effect > -margin

    def chance(n: int) -> float:
        if holds:
            return power(n, effect, sd, margin, test, alpha)
        if test == "equivalence":
            return _chance(n, (abs(effect) - margin) / sd, np.inf, alpha / 2)
        bound = margin if test == "superiority" else -margin
        level = alpha / 2 if test == "superiority" else min(alpha, ALPHA / 2)
        return _chance(n, (bound - effect) / sd, np.inf, level)

    if chance(cap) < wanted:
        return None
    low, high = 1, cap
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= wanted else (middle, high)
    return high
