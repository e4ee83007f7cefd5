"""What is tested of contrasts where a mean with its t interval is not all.

Both have what a pooled effect has: an interval, a p-value, and the seeds that would settle it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cyclery import stats
from cyclery.stats import Estimate, Interval, Test

MOST_ALIKE = 1000  # seeds with the same coefficient, searched one by one


def joint_power(steps: int) -> float:
    """Return the power that each of several steps needs for the usual one of all together."""
    return 1 - (1 - stats.POWER) / steps


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

    def interval(self, level: float = 0.95) -> Interval | None:
        """Return the interval of the smallest mean; None where a step has no spread."""
        lows = [stats.interval(step, level) for step in self.steps]
        highs = [stats.interval(step, 1 - (1 - level) / len(self.steps)) for step in self.steps]
        found = [(a[0], b[1]) for a, b in zip(lows, highs, strict=True) if a and b]
        if len(found) < len(self.steps):
            return None
        return min(low for low, _ in found), min(high for _, high in found)

    def p_value(self, test: Test, margin: float = 0.0) -> float:
        """Return the largest p-value of the steps; 1 where one is on the wrong side."""
        bound = -margin if test == "non-inferiority" else margin
        if any(step.effect <= bound for step in self.steps):
            return 1.0
        return max(stats.p_value(step, test, margin) for step in self.steps)

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds at which all steps together would have the usual power, or None.

        A step on the wrong side refutes the order by itself.
        """
        bound = -margin if test == "non-inferiority" else margin
        wrong = [step for step in self.steps if step.effect <= bound]
        wanted = stats.POWER if wrong else joint_power(len(self.steps))
        needed = [
            stats.seeds_to_settle(step.effect, step.sd, margin, test, alpha, wanted)
            for step in wrong or self.steps
        ]
        known = [n for n in needed if n is not None]
        if wrong:
            return min(known, default=None)
        return max(known) if len(known) == len(needed) else None


@dataclass(frozen=True)
class Coefficient:
    """The mean of coefficients between -1 and 1.

    With a spread it is a t interval, cut at -1 and 1. Where all n coefficients are c, the spread
    cannot be estimated, but the bounds tell of the mean mu: by Markov's inequality at most
    (1 + mu) / (1 + c) of the seeds reach c, so that n in a row have at most that chance to the
    power n. Solved for mu this is the lower limit, and the upper one by symmetry; for a perfect
    order it is the interval of Clopper and Pearson (1934).
    """

    estimate: Estimate

    def _bounds(self, tail: float) -> Interval:
        share, c = tail ** (1 / self.estimate.n), self.estimate.effect
        return (1 + c) * share - 1, 1 - (1 - c) * share

    def interval(self, level: float = 0.95) -> Interval | None:
        """Return the two-sided interval; None below two seeds."""
        if self.estimate.n < 2:
            return None
        found = stats.interval(self.estimate, level) or self._bounds((1 - level) / 2)
        return max(found[0], -1.0), min(found[1], 1.0)

    def p_value(self, test: Test, margin: float = 0.0) -> float:
        """Return the p-value of one test, as in ``cyclery.stats``."""
        if self.estimate.se is not None:
            return stats.p_value(self.estimate, test, margin)
        if self.estimate.n < 2:
            return 1.0
        c, n = self.estimate.effect, self.estimate.n

        def above(mu: float) -> float:
            return min(1.0, max(0.0, (1 + mu) / (1 + c)) ** n) if c > -1 else 1.0

        def below(mu: float) -> float:
            return min(1.0, max(0.0, (1 - mu) / (1 - c)) ** n) if c < 1 else 1.0

        if test == "superiority":
            return min(1.0, 2 * min(above(margin), below(margin)))
        if test == "equivalence":
            return max(above(-margin), below(margin))
        return above(-margin)

    def seeds_to_settle(self, test: Test, margin: float, alpha: float) -> int | None:
        """Return the seeds that would settle it if they go on like this, or None."""
        own = self.estimate
        if own.sd:
            return stats.seeds_to_settle(own.effect, own.sd, margin, test, alpha)
        for n in range(own.n + 1, MOST_ALIKE):
            more = replace(self, estimate=replace(own, n=n))
            low, high = more.interval(0.9 if test == "equivalence" else 0.95) or (-1.0, 1.0)
            inside = low > (margin if test == "superiority" else -margin)
            if test == "equivalence":
                inside = inside and high < margin
            outside = high < (margin if test == "superiority" else -margin)
            if test == "equivalence":
                outside = outside or low > margin
            if outside or (inside and more.p_value(test, margin) < alpha):
                return n
        return None
