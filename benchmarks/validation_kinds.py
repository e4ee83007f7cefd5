"""What validation.py simulates: laws of data, and kinds of tests with what the rule says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import e, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cyclery.evidence.comparison import Case
from cyclery.evidence.stats import alpha_spending, contrasts, flatness, paired_tests
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.evidence.stats.random_effects import pool
from cyclery.evidence.verdicts import decide

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Level = Callable[[float], float]  # overall one-sided error to the nominal level of a look
Estimator = Callable[[contrasts.Samples], paired_tests.Source | None]
Bounds = Callable[[float], tuple[Floats, Floats]]  # what is left out on a side to the interval


# What is drawn: paired differences with mean 0 and spread 1.


@dataclass(frozen=True)
class Law:
    """A law of paired differences and of the arms behind them; ``marked`` where there is a mark.

    Two arms of the same law differ symmetrically, whatever the law. A skewed difference needs arms
    whose laws have different shapes: no test of a mean from few values is safe against that.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Floats]
    # Arms whose differences have spread 1; None where differences have no arms of one law.
    arm: Callable[[np.random.Generator, tuple[int, ...]], Floats] | None = None

    @property
    def marked(self) -> bool:
        """Tell whether false verdicts have a pass mark."""
        return self.arm is not None


def _arms(name: str, law: Callable[..., Floats], sd: float) -> Law:
    return Law(
        name, lambda rng, shape: (law(rng, shape) - law(rng, shape)) / (sd * sqrt(2)),
        lambda rng, shape: law(rng, shape) / (sd * sqrt(2)),
    )  # fmt: skip


def _lognormal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (rng.lognormal(0.0, 1.0, shape) - sqrt(e)) / sqrt(e * (e - 1))


LAWS = (
    Law(
        "normal",
        lambda rng, shape: rng.standard_normal(shape),
        lambda rng, shape: rng.standard_normal(shape) / sqrt(2),
    ),
    _arms("skewed arms", _lognormal, 1.0),
    _arms("heavy-tailed arms", lambda rng, shape: rng.standard_t(3, shape), sqrt(3)),
    Law("differences skewed up", _lognormal),
    Law("differences skewed down", lambda rng, shape: -_lognormal(rng, shape)),
)


# Kinds of tests.


@dataclass(frozen=True)
class Kind:
    """A test: what it is given, and when it says "reproduced".

    Attributes:
        name: how tables call it.
        boundary: true effect at the edge of its null.
        planted: true effect whose power is measured, in spreads of a difference.
        sample: draws data sets [runs, seeds, ...] of an effect.
        look: takes data sets [runs, n, ...] in, and says which of them are called reproduced with
            some levels.
        judge: the package's own verdict at the last look of one data set [n, ...] and its plan.
        expected: the power that ``stats.paired_tests`` states for n seeds at one look, if it does.
        of_arms: whether it draws arms, so that only laws of arms suit it.
        most: data sets of a cell at most, where each is resampled.
    """

    name: str
    boundary: float
    planted: float
    sample: Callable[[np.random.Generator, Law, tuple[int, int], float], Floats]
    look: Callable[[Floats], Callable[[Level], Bools]]
    judge: Callable[[Floats, int | None], str]
    expected: Callable[[int], float] | None = None
    of_arms: bool = False
    most: int | None = None


def _inside(test: str, margin: float, bounds: Bounds, level: Level) -> Bools:
    if test == "equivalence":
        low, high = bounds(level(ALPHA))
        return (-margin < low) & (high < margin)
    return bounds(level(ALPHA / 2))[0] > (margin if test == "superiority" else -margin)


def t_bounds(x: Floats) -> Bounds:
    """Return the t intervals of data sets [runs, n]."""
    n = x.shape[1]
    mean, se = x.mean(axis=1), x.std(axis=1, ddof=1) / sqrt(n)

    def bounds(tail: float) -> tuple[Floats, Floats]:
        half = -special.stdtrit(n - 1, tail) * se
        return mean - half, mean + half

    return bounds


def pooled_bounds(x: Floats) -> Bounds:
    """Return the intervals of pooled data sets [runs, n, experiments] that share their seeds."""
    _, n, k = x.shape
    y, v = x.mean(axis=1), x.var(axis=1, ddof=1) / n
    w = 1 / v
    q = (w * (y - (w * y).sum(1, keepdims=True) / w.sum(1, keepdims=True)) ** 2).sum(1)
    tau2 = np.maximum(0, (q - (k - 1)) / (w.sum(1) - (w**2).sum(1) / w.sum(1)))
    w = 1 / (v + tau2[:, None])
    se2 = 1 / w.sum(1)
    w /= w.sum(1, keepdims=True)
    mean = (w * y).sum(1)
    centred = x - y[:, None]
    shared = np.maximum(0, np.einsum("rni,rnj->rij", centred, centred) / (n - 1)) / n
    shared[:, range(k), range(k)] = 0
    hartung = (w * (y - mean[:, None]) ** 2).sum(1) / (k - 1)
    se_dl = np.sqrt(np.maximum(se2 + np.einsum("ri,rij,rj->r", w, shared, w), hartung))
    within = (v.sum(1) + shared.sum((1, 2))) / k**2
    se_plain = np.sqrt(np.maximum(within, y.var(axis=1, ddof=1) / k))
    plain = y.mean(axis=1)

    def bounds(tail: float) -> tuple[Floats, Floats]:
        reach = -special.stdtrit(min(k - 1, n - 1), tail)
        return (
            np.minimum(mean - reach * se_dl, plain - reach * se_plain),
            np.maximum(mean + reach * se_dl, plain + reach * se_plain),
        )

    return bounds


def steps_bounds(x: Floats) -> Bounds:
    """Return the lower bounds of the smallest step of data sets [runs, n, steps]; none above."""
    found = [t_bounds(x[:, :, i]) for i in range(x.shape[2])]

    def bounds(tail: float) -> tuple[Floats, Floats]:
        low = np.min([one_(tail)[0] for one_ in found], axis=0)
        return low, np.full_like(low, np.inf)

    return bounds


def coefficient_bounds(x: Floats) -> Bounds:
    """Return the intervals of mean rank correlations of data sets [runs, n]."""
    c, n, spread = x[:, 0], x.shape[1], np.ptp(x, axis=1) > 1e-10
    usual = t_bounds(x)

    def bounds(tail: float) -> tuple[Floats, Floats]:
        low, high = usual(tail)
        share = tail ** (1 / n)
        low = np.where(spread, low, (1 + c) * share - 1)
        high = np.where(spread, high, 1 - (1 - c) * share)
        return np.maximum(low, -1), np.minimum(high, 1)

    return bounds


def _judge(
    test: paired_tests.Test, margin: float, estimator: Estimator, x: Floats, planned: int | None
) -> str:  # fmt: skip
    """Return the verdict of the package's own rule."""
    columns = x.T if x.ndim == 2 else [x]
    ends = (
        [len(x)] if planned is None else [n for n in alpha_spending.looks(planned) if n <= len(x)]
    )
    stages = [[dict(enumerate(map(float, column[:end]))) for column in columns] for end in ends]
    row = {"test": test, "margin": margin}
    case = Case(row, [], stages, len(x), estimator, planned=planned)
    p = case.p_value(), case.p_value(opposite=True)
    return decide(test, margin, case.interval(0.95), case.interval(0.90), *p)


def single(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:  # fmt: skip
    return law.draw(rng, shape) + effect


SCALE = np.array([0.1, 1.0, 1.0])  # one precise experiment among three


def differing(
    unlike: float, rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:
    """Draw three experiments with the same seeds, whose effects differ by a spread."""
    runs, n = shape
    own, common = law.draw(rng, (runs, n, 3)), law.draw(rng, (runs, n, 1))
    centres = effect + unlike * rng.standard_normal((runs, 1, 3))
    return centres + SCALE * (own + common) / sqrt(2)


def one(
    test: paired_tests.Test, margin: float, boundary: float, planted: float, note: str = ""
) -> Kind:
    """Return the test of one comparison."""
    return Kind(
        test + note, boundary, planted, single,
        lambda x: partial(_inside, test, margin, t_bounds(x)),
        partial(_judge, test, margin, contrasts.mean),
        lambda n: paired_tests.power(n, planted, 1.0, margin, test),
    )  # fmt: skip


def several(
    test: paired_tests.Test, margin: float, boundary: float, planted: float, unlike: float = 0.0
) -> Kind:
    """Return the test of a pooled claim over three experiments."""
    return Kind(
        f"pooled {test}" + (", unlike experiments" if unlike else ""), boundary, planted,
        partial(differing, unlike),
        lambda x: partial(_inside, test, margin, pooled_bounds(x)),
        partial(_judge, test, margin, pool),
    )  # fmt: skip


# Numbers that the four arms of a contrast stand for.
VALUES = (1.0, 2.0, 4.0, 7.0)


def _arms_of(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], step: float = 0.0
) -> Floats:  # fmt: skip
    """Draw arms [runs, seeds, 4], each ``step`` better than the one before."""
    if law.arm is None:
        raise ValueError(f"{law.name} is no law of arms")
    return law.arm(rng, (*shape, len(VALUES))) + step * np.arange(len(VALUES))


def _weighted(
    weights: Floats, rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:
    """Draw contrasts [runs, seeds] with spread 1 that are a weighted sum of arms."""
    return _arms_of(rng, law, shape) @ weights * sqrt(2 / (weights @ weights)) + effect


def weighted(name: str, weights: Floats, planted: float) -> Kind:
    """Return the test of a contrast that is a weighted sum of arms."""
    return Kind(
        name, 0.0, planted, partial(_weighted, weights),
        lambda x: partial(_inside, "superiority", 0.0, t_bounds(x)),
        partial(_judge, "superiority", 0.0, contrasts.mean),
        lambda n: paired_tests.power(n, planted, 1.0, 0.0, "superiority"), of_arms=True,
    )  # fmt: skip


def _steps_of_arms(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:  # fmt: skip
    """Draw the steps [runs, seeds, 3] between arms."""
    return np.diff(_arms_of(rng, law, shape, effect), axis=2)


def _one_doubtful_step(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:  # fmt: skip
    """Draw steps [runs, seeds, 3] of which the last two are beyond doubt: the hardest null."""
    return law.draw(rng, (*shape, 3)) + np.array([effect, 30.0, 30.0])


def ordering(name: str, sample: Callable[..., Floats], of_arms: bool) -> Kind:
    """Return the test that every step of four arms is positive."""
    return Kind(
        name, 0.0, 1.0, sample,
        lambda x: partial(_inside, "superiority", 0.0, steps_bounds(x)),
        partial(_judge, "superiority", 0.0, contrasts.order), of_arms=of_arms,
    )  # fmt: skip


def _correlations(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:  # fmt: skip
    """Draw Kendall's tau [runs, seeds] of arms with the numbers they stand for."""
    y = _arms_of(rng, law, shape, effect)
    pairs = [np.sign(y[..., j] - y[..., i]) for j in range(len(VALUES)) for i in range(j)]
    return np.mean(pairs, axis=0)


CORRELATION = Kind(
    "rank correlation", 0.0, 0.3, _correlations,
    lambda x: partial(_inside, "superiority", 0.0, coefficient_bounds(x)),
    partial(_judge, "superiority", 0.0, contrasts.coefficient), of_arms=True,
)  # fmt: skip

# Points of each side's grid, and of differences in flatness the resampled means [runs, MOST_PLACES]
# from either end that levels up to .05 ask for.
POINTS = 9
MOST_PLACES = flatness.place(ALPHA) + 2
CHUNK = 1_000


def _flatness(
    by: flatness.By, rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:
    """Draw differences in flatness [runs, seeds] of two grids; the other side has a slope."""
    if law.arm is None:
        raise ValueError(f"{law.name} is no law of arms")
    y = law.arm(rng, (*shape, 2, POINTS))
    y[:, :, 1] += effect * np.linspace(-1, 1, POINTS)
    return np.subtract(*np.moveaxis(flatness.flatness(y, by, 1.0), -1, 0))


def resampled_bounds(x: Floats) -> Bounds:
    """Return the outer ends of t and bootstrap intervals of data sets [runs, n]."""
    usual, n, spread = t_bounds(x), x.shape[1], np.ptp(x, axis=1) > 1e-10
    ends = []
    for start in range(0, len(x) if n >= paired_tests.BOOTSTRAP_FROM else 0, CHUNK):
        means = x[start : start + CHUNK] @ flatness.resampling(n).T
        means.partition([MOST_PLACES, means.shape[1] - 1 - MOST_PLACES], axis=1)
        low = np.sort(means[:, :MOST_PLACES], axis=1)
        high = np.sort(means[:, -MOST_PLACES:], axis=1)[:, ::-1]
        near = flatness.ROUNDING * np.maximum(1, np.abs(means).max(axis=1, keepdims=True))
        ends.append((low - near, high + near))
    outer = [np.concatenate(side) for side in zip(*ends, strict=True)]

    def bounds(tail: float) -> tuple[Floats, Floats]:
        low, high = usual(tail)
        if outer:
            at = flatness.place(tail)
            low, high = np.minimum(low, outer[0][:, at]), np.maximum(high, outer[1][:, at])
        # Differences that are all alike have no interval.
        return np.where(spread, low, -np.inf), np.where(spread, high, np.inf)

    return bounds


def flat(by: flatness.By, planted: float) -> Kind:
    """Return the test that one grid is flatter than another."""
    return Kind(
        f"flatness, {by}", 0.0, planted, partial(_flatness, by),
        lambda x: partial(_inside, "superiority", 0.0, resampled_bounds(x)),
        partial(_judge, "superiority", 0.0, contrasts.resampled), of_arms=True, most=4_000,
    )  # fmt: skip


KINDS = (
    one("superiority", 0.0, 0.0, 1.0),
    one("superiority", 1.0, 1.0, 2.0, ", margin of 1 s.d."),
    one("equivalence", 1.5, 1.5, 0.0),
    one("equivalence", 10.0, 10.0, 8.5, ", margin of 10 s.d."),
    one("non-inferiority", 1.0, -1.0, 0.0),
    several("superiority", 0.0, 0.0, 1.0),
    several("superiority", 0.0, 0.0, 1.0, unlike=0.3),
    several("equivalence", 1.5, 1.5, 0.0),
    several("non-inferiority", 1.0, -1.0, 0.0),
    weighted("interaction", np.array([1.0, -1.0, -1.0, 1.0]), 1.0),
    weighted("trend", contrasts.trend_weights(VALUES, "log"), 1.0),
    ordering("ordering of equal arms", _steps_of_arms, of_arms=True),
    ordering("ordering, other steps beyond doubt", _one_doubtful_step, of_arms=False),
    CORRELATION,
    flat("share", 1.0),
    flat("mean", 1.0),
)


def suits(kind: Kind, law: Law) -> bool:
    """Tell whether a kind is simulated under a law."""
    return law.arm is not None or not kind.of_arms
