"""How likely it is that later looks decide a comparison, from its effect and spread so far.

Nothing here touches a verdict: the rule of ``cyclery.evidence`` holds whatever these chances say,
so they are approximate where that is cheap. Effects are standardised: d is the effect over the
spread of a unit's difference. Before any data d follows a Cauchy law of scale 1 (Jeffreys 1961,
5.2: the usual prior of a standardised effect); with n units its likelihood is that of Hedges' g,
normal with variance 1/n + g^2 / (2 (n - 1)). Given d, the mean at a later look is normal, and the
look decides where that mean is as far from a bound as its t quantile at the level that the look may
spend, of the error that Holm's correction leaves (Spiegelhalter, Abrams and Myles 2004, 6.6.3).
"""

from __future__ import annotations

from functools import cache
from math import isfinite, sqrt

import numpy as np
from scipy import special

from cyclery.evidence.stats import alpha_spending
from cyclery.evidence.stats.paired_tests import ALPHA, Floats
from cyclery.records.claims import Interval, Test

# Nodes of the integral over d: quantiles of the prior, or standard deviations of the likelihood.
_QUANTILES = (np.arange(64) + 0.5) / 64
_DEVIATIONS = np.linspace(-4, 4, 33)


def spread(naive95: Interval | None, n: int) -> float | None:
    """Return the spread of a unit's difference that an ordinary 95 % interval of n units tells.

    It is the standard deviation for a plain mean, and for other estimators what would make the
    interval as wide. None where there is no spread.
    """
    if naive95 is None or n < 2 or any(end is None or not isfinite(end) for end in naive95):
        return None
    half = (naive95[1] - naive95[0]) / 2
    return float(half / special.stdtrit(n - 1, 0.975) * sqrt(n)) or None


def unseen(planned: int, share: int, left: int) -> tuple[float, ...]:
    """Return, of a comparison without data, the chance that it is decided at each look.

    Arguments are those of ``chances``.
    """
    true = special.stdtrit(1, _QUANTILES)  # Student's law of one degree of freedom is Cauchy's
    weights = np.full_like(true, 1 / len(true))
    return _decided("superiority", 0.0, 0.0, 0, true, weights, (planned, share, 0), (left, left))


def chances(
    test: Test, margin: float, effect: float, sd: float, n: int,
    planned: int, share: int = 1, reached: int = 0, left: tuple[int, int] = (1, 1),
) -> tuple[float, ...]:  # fmt: skip
    """Return the chance that each look to come decides a comparison, for or against it.

    Args:
        test: the declared test.
        margin: its margin, in the unit of the effect.
        effect: the effect so far, positive where the claim is right.
        sd: the spread of a unit's difference.
        n: units so far, at least 2.
        planned: planned seeds.
        share: seeds in a row that are one independent unit.
        reached: looks that the data have reached.
        left: what Holm's correction divides the error by, for the test and for its opposite.
    """
    g = effect / sd
    width = sqrt(1 / n + g * g / (2 * (n - 1)))
    true = g + width * _DEVIATIONS
    weights = np.exp(-(_DEVIATIONS**2) / 2) / (1 + true**2)
    return _decided(
        test, margin / sd, g, n, true, weights / weights.sum(), (planned, share, reached), left
    )


def _decided(
    test: Test, margin: float, seen: float, n: int, true: Floats, weights: Floats,
    plan: tuple[int, int, int], left: tuple[int, int],
) -> tuple[float, ...]:  # fmt: skip
    """Return the chances, all effects being standardised; ``true`` are those that there may be."""
    planned, share, reached = plan
    units = np.array(alpha_spending.units(planned, share)[reached:], dtype=float)
    # A look with no unit to come would have decided by now.
    more = np.maximum(units - n, 1e-9)
    centre = (n * seen + more * true[:, None]) / units  # [true effects, looks]
    deviation = np.sqrt(more) / units

    def beyond(bound: float, above: bool, error: float) -> Floats:
        """Return the chances that the mean clears a bound, by what an error leaves each look."""
        reach = _reach(error, planned, share)[reached:] / np.sqrt(units)
        distance = centre - bound if above else bound - centre
        found: Floats = special.ndtr((distance - reach) / deviation)
        return found

    own, opposite = (ALPHA / each for each in left)
    if test == "superiority":
        found = beyond(margin, True, own / 2) + beyond(margin, False, own / 2)
    elif test == "equivalence":
        inside = beyond(-margin, True, own) + beyond(margin, False, own) - 1
        outside = beyond(margin, True, opposite / 2) + beyond(-margin, False, opposite / 2)
        found = np.maximum(inside, 0) + outside
    else:
        # The interval that must clear the margin is two-sided.
        own, opposite = min(own, ALPHA / 2), min(opposite, ALPHA / 2)
        found = beyond(-margin, True, own) + beyond(-margin, False, opposite)
    return tuple(np.minimum(weights @ found, 1.0).tolist())


@cache
def _reach(error: float, planned: int, share: int) -> Floats:
    """Return the t quantile of each look for a one-sided error; infinite where it spends none."""
    levels = np.array(alpha_spending.levels(error, planned, share))
    df = np.array(alpha_spending.units(planned, share)) - 1.0
    with np.errstate(invalid="ignore"):
        found = -special.stdtrit(np.maximum(df, 1), levels)
    return np.where((levels > 0) & (df > 0), found, np.inf)
