"""Measure how often the rule of verdicts is wrong, by simulation, and what its intervals cover.

    python benchmarks/validation.py            # about a minute of one core
    python benchmarks/validation.py --docs     # put what is stored into docs/validation.md

Stored are, in results/published/validation/verdicts.json, counts of simulated data sets:

- ``false``: a true effect at the edge of a test's null is called reproduced; at fixed numbers of
  seeds, and where someone looks after every block of five and stops at the first "reproduced":
  with the levels that looks may spend, and with the naive ones that the rule does not use;
- ``power``: a planted effect is called reproduced, with the looks that it took;
- ``coverage``: an interval covers the truth.

A kind of test is one entry of ``KINDS``. Counting is vectorised over data sets; of each cell the
first ones are judged by the package's own code too, and any disagreement is an error.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import e, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from cyclery import contrasts, sequential, stats
from cyclery.cases import Case
from cyclery.files import write_atomic
from cyclery.pooling import pool
from cyclery.stats import ALPHA
from cyclery.verdicts import decide

Json = dict[str, Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Level = Callable[[float], float]  # overall one-sided error to the nominal level of a look
Estimator = Callable[[contrasts.Samples], stats.Source | None]
Bounds = Callable[[float], tuple[Floats, Floats]]  # what is left out on a side to the interval

ROOT = Path(__file__).resolve().parents[1]
STORED = Path("results/published/validation/verdicts.json")
RUNS, QUICK = 20_000, 1_000
SEEDS, PLANS = (3, 5, 10, 20), (10, 20, 50)
MOST = max(PLANS)
AUDITED = 10  # data sets of a cell that the package judges too
BOOTSTRAPPED = 1_000


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
        expected: the power that ``cyclery.stats`` states for n seeds at one look, if it does.
        of_arms: whether it draws arms, so that only laws of arms suit it.
    """

    name: str
    boundary: float
    planted: float
    sample: Callable[[np.random.Generator, Law, tuple[int, int], float], Floats]
    look: Callable[[Floats], Callable[[Level], Bools]]
    judge: Callable[[Floats, int | None], str]
    expected: Callable[[int], float] | None = None
    of_arms: bool = False


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
    test: stats.Test, margin: float, estimator: Estimator, x: Floats, planned: int | None
) -> str:  # fmt: skip
    """Return the verdict of the package's own rule."""
    columns = x.T if x.ndim == 2 else [x]
    ends = [len(x)] if planned is None else [n for n in sequential.looks(planned) if n <= len(x)]
    stages = [[dict(enumerate(map(float, column[:end]))) for column in columns] for end in ends]
    row = {"test": test, "margin": margin}
    case = Case(row, [], stages, len(x), estimator, planned=planned)
    return decide(test, margin, case.interval(0.95), case.interval(0.90), case.p_value())


def _single(
    rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:  # fmt: skip
    return law.draw(rng, shape) + effect


SCALE = np.array([0.1, 1.0, 1.0])  # one precise experiment among three


def _several(
    unlike: float, rng: np.random.Generator, law: Law, shape: tuple[int, int], effect: float
) -> Floats:
    """Draw three experiments with the same seeds, whose effects differ by a spread."""
    runs, n = shape
    own, common = law.draw(rng, (runs, n, 3)), law.draw(rng, (runs, n, 1))
    centres = effect + unlike * rng.standard_normal((runs, 1, 3))
    return centres + SCALE * (own + common) / sqrt(2)


def one(test: stats.Test, margin: float, boundary: float, planted: float, note: str = "") -> Kind:
    """Return the test of one comparison."""
    return Kind(
        test + note, boundary, planted, _single,
        lambda x: partial(_inside, test, margin, t_bounds(x)),
        partial(_judge, test, margin, contrasts.mean),
        lambda n: stats.power(n, planted, 1.0, margin, test),
    )  # fmt: skip


def several(
    test: stats.Test, margin: float, boundary: float, planted: float, unlike: float = 0.0
) -> Kind:
    """Return the test of a pooled claim over three experiments."""
    return Kind(
        f"pooled {test}" + (", unlike experiments" if unlike else ""), boundary, planted,
        partial(_several, unlike),
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
        lambda n: stats.power(n, planted, 1.0, 0.0, "superiority"), of_arms=True,
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
)


def suits(kind: Kind, law: Law) -> bool:
    """Tell whether a kind is simulated under a law."""
    return law.arm is not None or not kind.of_arms


# Measuring.


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()) for name in names])


def _plain(alpha: float) -> float:
    return alpha


def _at(planned: int, look: int) -> Level:
    """Return the nominal level of a look for an overall error."""
    return lambda alpha: sequential.levels(alpha, planned)[look]


def _audit(kind: Kind, x: Floats, planned: int | None, called: Bools) -> None:
    """Compare with the package's own verdicts."""
    for data, found in zip(x[:AUDITED], called[:AUDITED], strict=True):
        verdict = kind.judge(data, planned)
        if (verdict == "reproduced") != found:
            raise AssertionError(f"{kind.name}, plan {planned}: {verdict}, counted {found}: {data}")


def _looks(kind: Kind, x: Floats) -> dict[int, Callable[[Level], Bools]]:
    """Return what says "reproduced" at every number of seeds that some design looks at."""
    ends = {*SEEDS, *(end for planned in PLANS for end in sequential.looks(planned))}
    return {end: kind.look(x[:, :end]) for end in sorted(ends)}


def _once(kind: Kind, x: Floats, looks: dict[int, Callable[[Level], Bools]], n: int) -> Bools:
    """Return which data sets are called reproduced at one look."""
    called = looks[n](_plain)
    _audit(kind, x[:, :n], None, called)
    return called


def _planned(
    kind: Kind, x: Floats, looks: dict[int, Callable[[Level], Bools]], planned: int
) -> Bools:  # fmt: skip
    """Return which data sets are called reproduced at which look of a plan: [looks, runs]."""
    ends = sequential.looks(planned)
    called = np.array([looks[end](_at(planned, look)) for look, end in enumerate(ends)])
    for look in {len(ends) // 2, len(ends) - 1}:
        _audit(kind, x[:, : ends[look]], planned, called[look])
    return called


def false_rates(kind: Kind, law: Law, runs: int) -> Iterator[Json]:
    """Yield how often the edge of the null is called reproduced."""
    x = kind.sample(_generator("false", kind.name, law.name), law, (runs, MOST), kind.boundary)
    looks = _looks(kind, x)
    head = {"kind": kind.name, "law": law.name, "runs": runs}
    for n in SEEDS:
        called = _once(kind, x, looks, n)
        yield {**head, "design": "one look", "n": n, "marked": law.marked,
               "count": int(called.sum())}  # fmt: skip
    for planned in PLANS:
        called = _planned(kind, x, looks, planned).any(axis=0)
        yield {**head, "design": "spent", "n": planned, "marked": law.marked,
               "count": int(called.sum())}  # fmt: skip
        called = np.any([looks[end](_plain) for end in sequential.looks(planned)], axis=0)
        yield {**head, "design": "naive", "n": planned, "marked": False,
               "count": int(called.sum())}  # fmt: skip


def powers(kind: Kind, law: Law, runs: int) -> Iterator[Json]:
    """Yield how often a planted effect is called reproduced."""
    x = kind.sample(_generator("power", kind.name, law.name), law, (runs, MOST), kind.planted)
    looks = _looks(kind, x)
    head = {"kind": kind.name, "law": law.name, "runs": runs, "effect": kind.planted}
    for n in SEEDS:
        stated = kind.expected(n) if kind.expected and law.name == "normal" else None
        called = _once(kind, x, looks, n)
        yield {**head, "design": "one look", "n": n, "count": int(called.sum()), "stated": stated,
               "mean_seeds": float(n)}  # fmt: skip
    for planned in PLANS:
        called, ends = _planned(kind, x, looks, planned), np.array(sequential.looks(planned))
        used = np.where(called.any(axis=0), ends[called.argmax(axis=0)], planned)
        yield {**head, "design": "spent", "n": planned, "count": int(called.any(axis=0).sum()),
               "stated": None, "mean_seeds": float(used.mean())}  # fmt: skip


def coverages(law: Law, runs: int) -> Iterator[Json]:
    """Yield how often intervals at 95 % cover the truth, 0."""
    for name, draw, interval in (
        ("t", _single, t_bounds),
        ("pooled, unlike experiments", partial(_several, 0.3), pooled_bounds),
    ):
        x = draw(_generator("coverage", name, law.name), law, (runs, MOST), 0.0)
        for n in SEEDS:
            yield _covered(f"{name}, one look", law, n, _holds(*interval(x[:, :n])(ALPHA / 2)))
        for planned in PLANS:
            ends = sequential.looks(planned)
            bounds = [interval(x[:, :end]) for end in ends]
            spent = [_holds(*bounds[i](_at(planned, i)(ALPHA / 2))) for i in range(len(ends))]
            naive = [_holds(*bounds[i](ALPHA / 2)) for i in range(len(ends))]
            for words, holds in (("spent levels", spent), ("naive", naive)):
                # Who stops once an interval excludes 0 is left with one that does.
                every = np.all(holds, axis=0)
                yield _covered(f"{name}, {words}, every look", law, planned, every)
            yield _covered(f"{name}, spent levels, last look", law, planned, spent[-1])
    for n in (size for size in SEEDS if size >= stats.BOOTSTRAP_FROM):
        x = law.draw(_generator("bca", law.name), (min(runs, BOOTSTRAPPED), n))
        found = [stats.bca(data) or (np.nan, np.nan) for data in x]
        yield _covered("BCa bootstrap, one look", law, n, _holds(*np.array(found).T))


def _holds(low: Floats, high: Floats) -> Bools:
    return (low <= 0) & (high >= 0)


def _covered(name: str, law: Law, n: int, holds: Bools) -> Json:
    return {"interval": name, "law": law.name, "n": n, "runs": len(holds),
            "count": int(holds.sum())}  # fmt: skip


def measure(runs: int) -> Json:
    """Return all counts."""
    start = time.process_time()
    found: Json = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "runs": runs, "alpha": ALPHA,
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__,
                     "scipy": scipy.__version__},
        "false": [], "power": [], "coverage": [],
    }  # fmt: skip
    for law in LAWS:
        for kind in (kind for kind in KINDS if suits(kind, law)):
            found["false"] += false_rates(kind, law, runs)
            if law.marked:
                found["power"] += powers(kind, law, runs)
        found["coverage"] += coverages(law, runs)
        print(f"{law.name}: {time.process_time() - start:.0f} s", flush=True)
    return found | {"seconds": round(time.process_time() - start, 1)}


def main() -> int:
    """Run the command; return 1 where a pass mark is missed."""
    import validation_page as page

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} data sets; nothing stored")
    parser.add_argument("--docs", action="store_true", help="measure nothing; write the page")
    options = parser.parse_args()
    if options.docs:
        page.write(ROOT, ROOT / STORED)
        return 0
    found = measure(QUICK if options.quick else RUNS)
    if not options.quick:
        write_atomic(ROOT / STORED, page.dumps(found))
    missed = page.missed(found)
    print(*(f"missed: {one_}" for one_ in missed), sep="\n")
    print(f"{len(found['false'])} rates in {found['seconds']} s, {len(missed)} above their mark")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
