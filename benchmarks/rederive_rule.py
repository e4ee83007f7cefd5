"""The rule of docs/evidence.md, written a second time for `rederive.py`: looks, tests, verdicts.

Nothing of the package is imported. Looks: Lan and DeMets' function of O'Brien-Fleming type, of
which plans of several looks spend 93 %; levels by recursive integration of the normal density over
the region in which no earlier look stopped (Simpson's rule here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy import interpolate, optimize, stats

ALPHA = 0.05
SPENT = 0.93
MOST = 0.3  # one-sided; a larger sequential p counts as 1
LEAST = 1e-10
Values = dict[int, float]


# Looks.


def looks(planned: int, share: int) -> list[int]:
    """Return the seeds after which there is a look."""
    ends = [end // share * share for end in range(5, planned, 5)]
    return [*sorted({end for end in ends if share == 1 or end >= 3 * share}), planned]


@cache
def levels(alpha: float, planned: int, share: int) -> tuple[float, ...]:
    """Return the one-sided level of each look, for an error of all looks together."""
    units = [math.ceil(end / share) for end in looks(planned, share)]
    if len(units) == 1:
        return (alpha,)
    found: list[float] = []
    times = [unit / units[-1] for unit in units]
    # Density of the sum with variance t, of what has not stopped yet.
    grid, density, before, gone = np.zeros(1), np.ones(1), 0.0, 0.0
    weights = np.ones(1)
    for time in times:
        step = math.sqrt(time - before)
        quantile = stats.norm.isf(SPENT * alpha / 2)
        spent = SPENT * alpha if time == 1 else 2 * stats.norm.sf(quantile / math.sqrt(time))
        target = spent - gone

        def excess(bound: float, mass: Any = weights * density, at: Any = grid, sd: float = step,
                   aim: float = target) -> float:  # fmt: skip
            return math.log(max(float(mass @ stats.norm.sf((bound - at) / sd)), 1e-300) / aim)

        bound = optimize.brentq(excess, -8.0, 40.0, xtol=1e-12)
        found.append(float(stats.norm.sf(bound / math.sqrt(time))))
        fresh = np.linspace(-8.0 * math.sqrt(time), bound, 801)
        kernel = stats.norm.pdf((fresh[:, None] - grid) / step) / step
        density = kernel @ (weights * density)
        simpson = np.ones(801)
        simpson[1:-1:2], simpson[2:-1:2] = 4, 2
        weights = simpson * (fresh[1] - fresh[0]) / 3
        grid, before, gone = fresh, time, spent
    return tuple(found)


@cache
def _errors(planned: int, share: int) -> list[Any]:
    """Return, of each look, its level and the logarithm of the error as a function of its log."""
    errors = np.union1d(np.geomspace(LEAST, MOST, 40), [ALPHA / 2, ALPHA])
    table = np.array([levels(float(error), planned, share) for error in errors])
    found = []
    for nominal in table.T:
        kept = np.flatnonzero(np.diff(np.maximum.accumulate(nominal), prepend=0.0) > 0)
        line = interpolate.PchipInterpolator(np.log(nominal[kept]), np.log(errors[kept]))
        found.append((nominal[kept][0], nominal[kept][-1], line))
    return found


def overall(p: float, planned: int, share: int, look: int) -> float:
    """Return the smallest error of all looks at which this p-value crosses the look's boundary."""
    if len(looks(planned, share)) == 1:
        return p
    low, high, line = _errors(planned, share)[look]
    return 1.0 if p > high else float(np.exp(line(math.log(max(p, low)))))


# What a seed contributes.


def trend(y: np.ndarray, declared: dict[str, Any]) -> float:
    """Return the rise of the least-squares line, with one slope and a height for each block."""
    x = np.array(list(declared["values"].values()), dtype=float)
    x = {"log": np.log, "rank": stats.rankdata}.get(declared["scale"], np.asarray)(x)
    arms = list(declared["values"])
    design = [x]
    for block in declared["blocks"] or [arms]:
        design.append(np.array([float(arm in block) for arm in arms]))
    slope = np.linalg.lstsq(np.array(design).T, y, rcond=None)[0][0]
    return float(slope * np.ptp(x))


def flatness(y: np.ndarray, declared: dict[str, Any]) -> float:
    """Return the share of points near the best one, or the mean below it."""
    if declared["by"] == "mean":
        return float(np.mean(y - y.max()))
    return float(np.mean(y.max() - y <= declared["within"] + 1e-9))


def correlated(x: np.ndarray, y: np.ndarray, coefficient: str) -> float:
    """Return Kendall's tau-b or Spearman's rho, by scipy."""
    found = (stats.spearmanr if coefficient == "spearman" else stats.kendalltau)(x, y)
    return float(found.statistic)


# Estimates.


@dataclass
class Mean:
    """A mean, with its standard error where the spread can be estimated."""

    effect: float
    se: float | None
    df: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of a sample; values that agree to ten digits have no spread."""
        x = np.array(values, dtype=float)
        alike = np.ptp(x) <= 1e-10 * max(1.0, float(np.abs(x).max()))
        if len(x) < 2 or alike:
            return cls(float(x[0]), None, len(x) - 1, len(x))
        return cls(float(x.mean()), float(stats.sem(x)), len(x) - 1, len(x))

    def tail(self, bound: float, above: bool) -> float:
        """Return the one-sided p-value of an effect above, or below, a bound."""
        if self.se is None:
            return 1.0
        t = (self.effect - bound) / self.se
        return float(stats.t.sf(t if above else -t, self.df))

    def limits(self, lower: float, upper: float) -> tuple[float, float] | None:
        """Return the interval that leaves out these errors; None without a spread."""
        if self.se is None:
            return None
        low, high = (float(stats.t.isf(error, self.df)) for error in (lower, upper))
        return self.effect - low * self.se, self.effect + high * self.se


class Source:
    """What is estimated at a look; of an ordering and a pooled mean several means at once."""

    def __init__(self, kind: str, samples: list[Values]) -> None:
        self.kind, self.resamples = kind, None
        values = [list(sample.values()) for sample in samples]
        self.means = pooled(samples) if kind == "pooled" else [Mean.of(each) for each in values]
        if kind == "flatness" and len(values[0]) >= 10 and self.means[0].se is not None:
            rng = np.random.default_rng(20)
            drawn = rng.choice(np.array(values[0]), (2000, len(values[0])))
            self.resamples = np.sort(drawn.mean(axis=1))
        main = (
            min(self.means, key=lambda mean: mean.effect) if kind == "ordering" else self.means[0]
        )
        self.main, self.effect = main, main.effect
        self.ways = len(self.means) if kind == "ordering" else 1

    def tail(self, bound: float, above: bool) -> float:
        """Return the one-sided p-value of an effect above, or below, a bound."""
        if self.kind == "rank correlation" and self.main.se is None and self.main.n > 1:
            sign = 1 if above else -1
            room, reach = 1 + sign * bound, 1 + sign * self.effect
            return 1.0 if room >= reach else max(0.0, room / reach) ** self.main.n
        if any(mean.se is None for mean in self.means):
            return 1.0
        tails = [mean.tail(bound, above) for mean in self.means]
        if self.resamples is not None:
            beyond = self.resamples - bound if above else bound - self.resamples
            tails.append(float(np.mean(beyond <= 1e-12)))
        return min(tails) if self.kind == "ordering" and not above else max(tails)

    def limits(self, lower: float, upper: float) -> tuple[float, float] | None:
        """Return the interval that leaves out these errors; None without a spread."""
        if self.kind == "rank correlation":
            c, n = self.effect, self.main.n
            if n < 2:
                return None
            found = self.main.limits(lower, upper) or (
                (1 + c) * lower ** (1 / n) - 1, 1 - (1 - c) * upper ** (1 / n)
            )  # fmt: skip
            return max(found[0], -1.0), min(found[1], 1.0)
        ends = [mean.limits(lower, upper) for mean in self.means]
        if None in ends:
            return None
        lows, highs = zip(*[end for end in ends if end], strict=True)
        low, high = min(lows), min(highs) if self.kind == "ordering" else max(highs)
        if self.resamples is not None:
            low = min(low, float(self.resamples[max(0, math.ceil(2000 * lower) - 1)]))
            high = max(high, float(self.resamples[-1 - max(0, math.ceil(2000 * upper) - 1)]))
        return low, high


def pooled(samples: list[Values]) -> list[Mean]:
    """Return the DerSimonian-Laird mean and the plain one, each with its corrected error.

    Seeds that experiments share correlate them; an experiment whose differences are all alike has
    the smallest variance of the others.
    """
    means = [Mean.of(list(sample.values())) for sample in samples]
    known = [mean.se**2 for mean in means if mean.se is not None]
    if not known or any(mean.n < 2 for mean in means):
        return [Mean(math.nan, None, 0, 0)]
    if len(means) == 1:
        return means
    y = np.array([mean.effect for mean in means])
    v = np.array([mean.se**2 if mean.se is not None else min(known) for mean in means])
    k, n = len(means), min(mean.n for mean in means)
    w = 1 / v
    q = float(w @ (y - w @ y / w.sum()) ** 2)
    tau2 = max(0.0, (q - (k - 1)) / float(w.sum() - (w @ w) / w.sum()))
    w = 1 / (v + tau2)
    error, w = 1 / w.sum(), w / w.sum()
    shared = np.zeros((k, k))
    for i in range(k):
        for j in range(i):
            both = sorted(samples[i].keys() & samples[j].keys())
            if len(both) > 1:
                pair = [[samples[e][s] for s in both] for e in (i, j)]
                cov = max(0.0, float(np.cov(pair)[0, 1]))
                shared[i, j] = shared[j, i] = cov * len(both) / (
                    len(samples[i]) * len(samples[j])
                )  # fmt: skip
    mean = float(w @ y)
    hartung = float(w @ (y - mean) ** 2) / (k - 1)
    first = math.sqrt(max(error + float(w @ shared @ w), hartung))
    second = math.sqrt(max(float(v.sum() + shared.sum()) / k**2, float(y.var(ddof=1)) / k))
    df = min(k - 1, n - 1)
    return [Mean(mean, first, df, n), Mean(float(y.mean()), second, df, n)]


# Verdicts.


@dataclass
class Sample:
    """One test of a family: its data at each look that they have reached."""

    test: str
    margin: float
    kind: str
    planned: int
    share: int
    stages: list[list[Values]]
    problem: bool = False
    lost: list[int] = field(default_factory=list)
    missing: bool = False
    # Of the test and of its opposite, adjusted.
    p: tuple[float, float] = (1.0, 1.0)
    adjusted: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def empty(cls, test: str, margin: float) -> Sample:
        """Return one that the tier does not run."""
        return cls(test, margin, "difference", 1, 1, [], missing=True)

    @property
    def sources(self) -> list[Source | None]:
        """Return the estimate at each look."""
        return [Source(self.kind, s) if all(s) else None for s in self.stages]

    def p_values(self) -> tuple[float, float]:
        """Return the sequential p-values of the test and of its opposite."""
        sources = self.sources
        if self.missing or self.problem or not sources or sources[-1] is None:
            return 1.0, 1.0
        above = sources[-1].effect > self.margin
        both = []
        for opposite in (False, True):
            each = [
                self._at(source, look, above, opposite)
                for look, source in enumerate(sources) if source is not None
            ]  # fmt: skip
            both.append(min(each))
        return (both[0], both[0]) if self.test == "superiority" else (both[0], both[1])

    def _at(self, source: Source, look: int, above: bool, opposite: bool) -> float:
        def side(bound: float, up: bool) -> float:
            p = overall(source.tail(bound, up), self.planned, self.share, look)
            return p if up else min(1.0, source.ways * p)

        m = self.margin
        if self.test == "superiority":
            return min(1.0, 2 * side(m, above))
        if self.test == "equivalence":
            if opposite:
                return min(1.0, 2 * min(side(m, True), side(-m, False)))
            return max(side(-m, True), side(m, False))
        return side(-m, not opposite)

    def interval(self, level: float) -> tuple[float, float] | None:
        """Return the interval at the level that the last look may spend."""
        sources = self.sources
        if self.problem or self.missing or not sources or sources[-1] is None:
            return None
        tail, look = (1 - level) / 2, len(sources) - 1
        lower, upper = (
            levels(error, self.planned, self.share)[look]
            for error in (tail, tail / sources[-1].ways)
        )
        return sources[-1].limits(lower, upper)

    def held_back(self, verdict: str) -> bool:
        """Say whether runs that diverged and left their pair out could have made the verdict."""
        lost = [*self.lost, 0, 0][: max(2, len(self.lost))]
        if verdict == "inconclusive":
            return False
        if self.test == "equivalence" or len(lost) > 2:
            return len(set(lost)) > 1
        return lost[0] > lost[1] if verdict == "reproduced" else lost[1] > lost[0]


def adjust(family: list[Sample]) -> None:
    """Enter the p-values of a family, and those with Holm's correction."""
    found = [each.p_values() for each in family]
    columns = []
    for p in zip(*found, strict=True) if found else ():
        order, most, out = np.argsort(p, kind="stable"), 0.0, [0.0] * len(p)
        for rank, place in enumerate(order):
            most = max(most, min(1.0, (len(p) - rank) * p[place]))
            out[place] = most
        columns.append(out)
    for place, each in enumerate(family):
        each.p, each.adjusted = found[place], (columns[0][place], columns[1][place])


def judge_one(sample: Sample) -> dict[str, Any]:
    """Return the verdict of one comparison of an adjusted family, with its figures."""
    if sample.missing:
        return {"verdict": "not run", "effect": None, "p": None, "ci95": None}
    ci95, ci90 = sample.interval(0.95), sample.interval(0.90)
    last = sample.sources[-1] if sample.stages else None
    effect = last.effect if last else None
    out = {"verdict": "inconclusive", "effect": effect, "p": sample.p[0], "ci95": ci95}
    if ci95 is None or ci90 is None:
        return out | {"p": None}
    m = sample.margin
    if sample.test == "equivalence":
        holds, fails = -m < ci90[0] and ci90[1] < m, ci90[0] > m or ci90[1] < -m
    else:
        bound = m if sample.test == "superiority" else -m
        holds, fails = ci95[0] > bound, ci95[1] < bound
    verdict = "inconclusive"
    if holds and sample.adjusted[0] < ALPHA:
        verdict = "reproduced"
    elif fails and sample.adjusted[1] < ALPHA:
        verdict = "contradicted"
    return out if sample.held_back(verdict) else out | {"verdict": verdict}


def combined(verdicts: list[str]) -> str:
    """Return the verdict of a claim that needs all of its comparisons."""
    if "reproduced" in verdicts:
        return "reproduced" if set(verdicts) == {"reproduced"} else "partly"
    if "contradicted" in verdicts:
        return "contradicted"
    return "not run" if set(verdicts) == {"not run"} else "inconclusive"
