"""Interim analyses: Lan-DeMets alpha spending, O'Brien-Fleming type.

A claim plans its seeds before the run. Its data may be tested after every block of ``EVERY`` seeds
and at the planned number. Each such interim analysis, here called a look, spends a part of the
error that one test would have: after a fraction t of the planned units, 2 (1 - Phi(z(a / 2) / sqrt
t)) of a one-sided error a (Lan and DeMets 1983). A unit is what is drawn independently: a seed, or
``share`` seeds in a row that share a teacher or a split. Looks before the last take whole units,
three at least. From that follow the *nominal* levels of the looks: the boundary of a look is
crossed where the one-sided p-value of its data alone is below the look's nominal level. They are
exact for a normal statistic with independent increments, by recursive numerical integration
(Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, chapter 19).

Few seeds have a t statistic. Its boundary is not the normal quantile z but the t quantile of the
same nominal level (the significance-level approach of Pocock 1977), so that every single look has
exactly its level. But t statistics of growing data are less alike than normal ones: simulated with
1.6 million data sets, at one-sided errors of .05, .025, .01 and .002, the looks together err 2 to 7
% more often than they may (7 % in a plan of 7 seeds, 2 to 4 % in plans of 10, 20 and 50). So plans
of several looks spend only ``KEPT`` of the error; docs/validation.md measures what comes out.

Each side has a boundary of its own that the other does not help, so a two-sided test of level .05
spends .025 on either side. With one look everything here is the plain test.
"""

from __future__ import annotations

from functools import cache
from math import ceil, inf, log, sqrt

import numpy as np
from scipy import interpolate, optimize, special

from cyclery.evidence.stats.paired_tests import ALPHA, Floats

EVERY = 5
KEPT = 0.93
_REACH = 10.0  # standard deviations that an integral extends over
_LEAST = 1e-10  # smallest sequential p that is told apart
_MOST = 0.3  # one-sided; nominal levels rise with the error up to here (Maurer and Bretz 2013)


def looks(planned: int, share: int = 1) -> tuple[int, ...]:
    """Return the seeds after which a plan has its looks: every block's end and the planned number.

    >>> looks(12)
    (5, 10, 12)
    >>> looks(20, share=3)
    (9, 15, 20)
    """
    if share == 1:
        return (*range(EVERY, planned, EVERY), planned)
    whole = {end // share * share for end in range(EVERY, planned, EVERY)}
    return (*sorted(end for end in whole if end >= 3 * share), planned)


def units(planned: int, share: int = 1) -> tuple[int, ...]:
    """Return how many independent units each look has.

    >>> units(20, share=3)
    (3, 5, 7)
    """
    return tuple(ceil(end / share) for end in looks(planned, share))


def spent(alpha: float, fraction: float) -> float:
    """Return how much of a one-sided error is spent after this fraction of the planned units."""
    if fraction >= 1:
        return alpha
    return 2 * float(special.ndtr(special.ndtri(alpha / 2) / sqrt(fraction)))


@cache
def _nodes(size: int) -> tuple[Floats, Floats]:
    """Return Gauss-Legendre nodes and weights."""
    places, weights = np.polynomial.legendre.leggauss(size)
    return places, weights


def levels(alpha: float, planned: int, share: int = 1) -> tuple[float, ...]:
    """Return the nominal one-sided level of each look at a t statistic, for an error ``alpha``.

    A level of 0 is one below the smallest number: nothing crosses at that look.
    """
    ends = units(planned, share)
    return boundaries(alpha if len(ends) == 1 else KEPT * alpha, ends)


@cache
def boundaries(alpha: float, ends: tuple[int, ...]) -> tuple[float, ...]:
    """Return the nominal one-sided levels of looks at a normal statistic, exactly.

    ``ends`` are the units of each look, rising.
    """
    if len(ends) == 1:
        return (alpha,)
    found: list[float] = []
    nodes, density = np.zeros(1), np.ones(1)  # of the sum, scaled to variance t, not yet stopped
    before = gone = 0.0
    for end in ends:
        time = end / ends[-1]
        step, deviation = sqrt(time - before), sqrt(time)
        target = spent(alpha, time) - gone
        bound = _bound(nodes, density, step, deviation, target)
        found.append(float(special.ndtr(-bound / deviation)))
        gone, before = gone + max(target, 0.0), time
        high = min(bound, _REACH * deviation)
        size = 32 * ceil(max(64.0, 2.5 * (high + _REACH * deviation) / step) / 32)
        places, weights = _nodes(size)
        half = (high + _REACH * deviation) / 2
        fresh = high - half + half * places
        kernel = np.exp(-0.5 * ((fresh[:, None] - nodes) / step) ** 2) / (step * sqrt(2 * np.pi))
        nodes, density = fresh, half * weights * (kernel @ density)
    return tuple(found)


def _bound(nodes: Floats, density: Floats, step: float, deviation: float, target: float) -> float:
    """Return what the sum exceeds, not having been stopped, with this probability."""
    if target <= 0:
        return inf

    def excess(bound: float) -> float:
        chance = float(density @ special.ndtr((nodes - bound) / step))
        return log(max(chance, 1e-320)) - log(target)

    low, high = -_REACH * deviation, 40 * deviation
    return inf if excess(high) > 0 else float(optimize.brentq(excess, low, high, xtol=1e-12))


@cache
def _inverse(
    planned: int, look: int, share: int
) -> tuple[Floats, interpolate.PchipInterpolator]:  # fmt: skip
    """Return nominal levels of a look, rising, and log error as a function of log level."""
    # The errors that verdicts are read at are nodes, so that p and interval agree there.
    grid = np.union1d(np.geomspace(_LEAST, _MOST, 32), [ALPHA / 2, ALPHA])
    nominal = np.array([levels(float(alpha), planned, share)[look] for alpha in grid])
    kept = np.flatnonzero(np.diff(np.maximum.accumulate(nominal), prepend=0.0) > 0)
    return nominal[kept], interpolate.PchipInterpolator(np.log(nominal[kept]), np.log(grid[kept]))


def overall(p: float, planned: int, look: int, share: int = 1) -> float:
    """Return the smallest one-sided error with which a look's boundary is crossed.

    Args:
        p: one-sided p-value of the look's data alone.
        planned: planned seeds.
        look: which look, from 0.
        share: seeds in a row that are one independent unit.

    Returns:
        ``p`` itself in a plan of one look; else at least 1e-10, and 1 above .3.
    """
    if len(looks(planned, share)) == 1:
        return p
    nominal, error = _inverse(planned, look, share)
    if p > nominal[-1]:
        return 1.0
    return float(np.exp(error(log(max(p, nominal[0])))))
