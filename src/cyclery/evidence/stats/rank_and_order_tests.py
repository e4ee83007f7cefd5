"""Tests of orderings and of rank correlations.

Both are sources of a verdict like a mean (``paired_tests.Source``): they have one-sided p-values,
limits at given errors, and the sample sizes that would decide them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.paired_tests import Estimate, OneMean
from cyclery.records.claims import Interval, Test

MOST_ALIKE = 1000  # seeds with the same coefficient, searched one by one


def joint_power(steps: int) -> float:
    """Return the power that each of several steps needs for the usual one of all together."""
    return 1 - (1 - paired_tests.POWER) / steps


@dataclass(frozen=True)
class Steps:
    """The smallest of several means: an ordering holds if all of its steps do.

    The intersection-union test (Berger 1982) needs no correction for the number of steps: its p is
    the largest, its lower bound the smallest of theirs. The upper bound is the smallest of upper
    bounds at the level over the number of steps (Bonferroni), since any of them may be crossed.
    """

    steps: tuple[Estimate, ...]

    @property
    def weakest(self) -> int:
        """Return the index of the smallest step."""
        return min(range(len(self.steps)), key=lambda i: self.steps[i].effect)

    @property
    def estimate(self) -> Estimate:
        """Return the smallest step."""
        return self.steps[self.weakest]

    @property
    def effect(self) -> float:
        """Return the mean of the smallest step."""
        return self.estimate.effect

    @property
    def ways(self) -> int:
        """Return the number of steps, any of which refutes the order."""
        return len(self.steps)

    def tail(self, bound: float, above: bool) -> float:
        """Return the largest p-value of steps above a bound, or the smallest of ones below it.

        1 where a step has no spread.
        """
        if any(step.se is None for step in self.steps):
            return 1.0
        tails = [step.tail(bound, above) for step in self.steps]
        return max(tails) if above else min(tails)

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the smallest of either end of the steps; None where one has no spread."""
        ends = [step.limits(lower, upper) for step in self.steps]
        found = [ci for ci in ends if ci is not None]
        if len(found) < len(ends):
            return None
        return min(low for low, _ in found), min(high for _, high in found)

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds at which all steps together would have the usual power, or None.

        A step on the wrong side refutes the order by itself.
        """
        bound = -margin if test == "non-inferiority" else margin
        wrong = [step for step in self.steps if step.effect <= bound]
        wanted = paired_tests.POWER if wrong else joint_power(len(self.steps))
        needed = [
            paired_tests.seeds_to_settle(step.effect, step.sd, margin, test, alpha, wanted)
            for step in wrong or self.steps
        ]
        known = [n for n in needed if n is not None]
        if wrong:
            return min(known, default=None)
        return max(known) if len(known) == len(needed) else None


@dataclass(frozen=True)
class Coefficient(OneMean):
    """The mean of coefficients between -1 and 1.

    With a spread it is a t interval, cut at -1 and 1. Where all n coefficients are c, the spread
    cannot be estimated, but the bounds tell of the mean mu: by Markov's inequality at most
    (1 + mu) / (1 + c) of the seeds reach c, so that n in a row have at most that chance to the
    power n. Solved for mu this is the lower limit, and the upper one by symmetry; for a perfect
    order it is the interval of Clopper and Pearson (1934).
    """

    def limits(self, lower: float, upper: float) -> Interval | None:
        """Return the ends of the interval; None below two seeds."""
        c, n = self.estimate.effect, self.estimate.n
        if n < 2:
            return None
        found = self.estimate.limits(lower, upper) or (
            (1 + c) * lower ** (1 / n) - 1, 1 - (1 - c) * upper ** (1 / n),
        )  # fmt: skip
        return max(found[0], -1.0), min(found[1], 1.0)

    def tail(self, bound: float, above: bool) -> float:
        """Return the one-sided p-value of a mean above, or below, a bound; 1 below two seeds."""
        if self.estimate.se is not None or self.estimate.n < 2:
            return self.estimate.tail(bound, above)
        sign = 1 if above else -1
        room, reach = 1 + sign * bound, 1 + sign * self.estimate.effect
        return 1.0 if room >= reach else max(0.0, room / reach) ** self.estimate.n

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds that would decide it at this effect and spread, or None."""
        own = self.estimate
        if own.sd:
            return paired_tests.seeds_to_settle(own.effect, own.sd, margin, test, alpha)
        level = 0.9 if test == "equivalence" else 0.95
        for n in range(own.n + 1, MOST_ALIKE):
            more = replace(self, estimate=replace(own, n=n))
            low, high = paired_tests.interval(more, level) or (-1.0, 1.0)
            inside = low > (margin if test == "superiority" else -margin)
            if test == "equivalence":
                inside = inside and high < margin
            outside = high < (margin if test == "superiority" else -margin)
            if test == "equivalence":
                outside = outside or low > margin
            if (inside or outside) and paired_tests.p_value(
                more, test, margin, opposite=outside
            ) < alpha:
                return n
        return None
