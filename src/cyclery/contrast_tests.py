"""What is tested of contrasts where a mean with its t interval is not all.

Both have what a pooled effect has: an interval, a p-value, and the seeds that would settle it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cyclery import stats
from cyclery.stats import Estimate, Interval, Test


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

    def seeds_for(
        self, test: Test, margin: float, alpha: float, effect: float | None, sd: float | None
    ) -> int | None:
        """Return the seeds at which all steps together have the usual power, or None.

        With ``effect`` every step is as large as that; else each is as it was measured.
        """
        wanted = 1 - (1 - stats.POWER) / len(self.steps)
        if effect is not None:
            spread = sd or max((step.sd or 0.0 for step in self.steps), default=0.0)
            return stats.seeds_to_settle(effect, spread, margin, test, alpha, wanted)
        bound = -margin if test == "non-inferiority" else margin
        wrong = [step for step in self.steps if step.effect <= bound]
        power = stats.POWER if wrong else wanted
        needed = [
            stats.seeds_to_settle(step.effect, step.sd, margin, test, alpha, power)
            for step in wrong or self.steps
        ]
        known = [n for n in needed if n is not None]
        if wrong:  # any one of them refutes the order
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

    def seeds_for(
        self, test: Test, margin: float, alpha: float, effect: float | None, sd: float | None
    ) -> int | None:
        """Return the seeds that settle it, or those for a stated effect; None if none do."""
        own = self.estimate
        size = own.effect if effect is None else effect
        if sd or own.sd:
            return stats.seeds_to_settle(size, sd or own.sd, margin, test, alpha)
        if effect is not None:
            return None
        for n in range(own.n + 1, stats.MOST_SEEDS):
            more = replace(self, estimate=replace(own, n=n))
            p, interval = more.p_value(test, margin), more.interval()
            if interval is None or n > 1000:
                break
            clear = interval[0] > (margin if test == "superiority" else -margin)
            if (p < alpha and clear) or interval[1] < margin:
                return n
        return None
