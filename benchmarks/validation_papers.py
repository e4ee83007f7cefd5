"""Whole papers: how often any of many comparisons is decided wrongly, and what power that costs.

A paper has 10 or 28 comparisons, in groups of up to four arms that share a control. Where all nulls
are true, every effect is at the edge of its test's null on both sides, so that every "reproduced"
and every "contradicted" is wrong. Where effects are planted, a third of the comparisons have one in
the claim's favour, a third the opposite, a third none.

The rule before, until 2026-11-28, read a contradiction off the interval of its comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import ceil, sqrt
from typing import Any

import numpy as np
from scipy import special
from validation_kinds import LAWS, Bools, Floats, Law

from cyclery.evidence.comparison import Case
from cyclery.evidence.stats import alpha_spending, paired_tests
from cyclery.evidence.stats.contrasts import mean
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.evidence.verdicts import Family

Json = dict[str, Any]

SIZES, NUMBERS = (10, 28), (5, 10, 20)
SHARED = 4  # arms that share a control
MARGIN, PLANTED = 1.0, 1.5  # in spreads of a difference
CHUNK = 2_000
AUDITED = 5

# Shares of tests in a paper; all of them superiority but where a paper is mixed.
PAPERS: dict[str, tuple[paired_tests.Test, ...]] = {
    "superiority": ("superiority",),
    "mixed": ("superiority", "superiority", "superiority", "equivalence", "non-inferiority"),
}


def tests(name: str, size: int) -> list[paired_tests.Test]:
    """Return the tests of a paper's comparisons."""
    kinds = PAPERS[name]
    return [kinds[i % len(kinds)] for i in range(size)]


def boundary(test: paired_tests.Test) -> float:
    """Return the effect at the edge of both nulls of a test: neither verdict may be given."""
    return {"superiority": 0.0, "equivalence": MARGIN, "non-inferiority": -MARGIN}[test]


def margin(test: paired_tests.Test) -> float:
    return 0.0 if test == "superiority" else MARGIN


def draw(
    rng: np.random.Generator, law: Law, runs: int, n: int, effects: list[float]
) -> Floats:  # fmt: skip
    """Return differences [runs, n, comparisons] of arms and the control of their group."""
    assert law.arm is not None
    size = len(effects)
    arms = law.arm(rng, (runs, n, size))
    controls = law.arm(rng, (runs, n, ceil(size / SHARED)))
    return arms - np.repeat(controls, SHARED, axis=2)[:, :, :size] + np.array(effects)


@cache
def _overall(planned: int, look: int) -> tuple[Floats, Floats]:
    """Return the overall error as a function of a look's p, both as logarithms on a fine grid."""
    grid = np.concatenate([np.geomspace(1e-12, 0.3, 4000), np.geomspace(0.3, 1, 500)[1:]])
    found = [alpha_spending.overall(float(p), planned, look) for p in grid]
    return np.log(grid), np.log(np.array(found))


def overall(p: Floats, planned: int, look: int) -> Floats:
    """Return sequential p-values of many data sets at once."""
    if len(alpha_spending.looks(planned)) == 1:
        return p
    grid, found = _overall(planned, look)
    spent: Floats = np.exp(np.interp(np.log(np.maximum(p, 1e-12)), grid, found))
    return spent


def holm(p: Floats) -> Floats:
    """Return p-values [runs, comparisons] adjusted by Holm within each run."""
    order = np.argsort(p, axis=1, kind="stable")
    size = p.shape[1]
    ranked = np.take_along_axis(p, order, axis=1) * (size - np.arange(size))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1, np.maximum.accumulate(ranked, axis=1)), axis=1)
    return adjusted


def looks(
    x: Floats, kinds: list[paired_tests.Test], planned: int
) -> Iterator[tuple[Floats, Floats, Bools, Bools]]:
    """Yield, look by look, what verdicts are read from, each as [runs, comparisons].

    The sequential p-values of the tests and of their opposites, and whether the interval of the
    look lies where the claim says, or where it says it does not.
    """
    m = np.array([margin(test) for test in kinds])
    superiority, equivalence = (
        np.array([test == name for test in kinds]) for name in ("superiority", "equivalence")
    )
    low_bound = np.where(superiority, m, -m)  # where the effect must lie above
    tails: list[tuple[Floats, Floats, Floats, Floats]] = []
    for look, end in enumerate(alpha_spending.looks(planned)):
        some = x[:, :end]
        effect, se = some.mean(axis=1), some.std(axis=1, ddof=1) / sqrt(end)

        def tail(bound: Floats, sign: int, at: Floats = effect, se: Floats = se,
                 df: int = end - 1, look: int = look) -> Floats:  # fmt: skip
            """Return the sequential one-sided p of an effect above (1) or below (-1) a bound."""
            return overall(special.stdtr(df, -sign * (at - bound) / se), planned, look)

        tails.append((tail(low_bound, 1), tail(low_bound, -1), tail(m, 1), tail(m, -1)))
        above, below, *_ = (np.min(each, axis=0) for each in zip(*tails, strict=True))
        # Each look's own p of an equivalence needs both sides at that look.
        inside = np.min([np.maximum(t[0], t[3]) for t in tails], axis=0)
        outside = np.minimum(1, 2 * np.min([np.minimum(t[2], t[1]) for t in tails], axis=0))
        two_sided = np.minimum(1, 2 * np.where(effect > m, above, below))
        p = np.where(superiority, two_sided, np.where(equivalence, inside, above))
        opposite = np.where(superiority, two_sided, np.where(equivalence, outside, below))
        level95, level90 = (alpha_spending.levels(a, planned)[look] for a in (ALPHA / 2, ALPHA))
        reach95, reach90 = (-special.stdtrit(end - 1, a) * se for a in (level95, level90))
        supported = np.where(
            equivalence, (effect - reach90 > -m) & (effect + reach90 < m),
            effect - reach95 > low_bound,
        )  # fmt: skip
        refuted = np.where(
            equivalence, (effect - reach90 > m) | (effect + reach90 < -m),
            effect + reach95 < low_bound,
        )  # fmt: skip
        yield p, opposite, supported, refuted


def verdicts(x: Floats, kinds: list[paired_tests.Test], planned: int) -> Iterator[dict[str, Bools]]:
    """Yield, look by look, which comparisons [runs, comparisons] are decided, by either rule."""
    for p, opposite, supported, refuted in looks(x, kinds, planned):
        yield {
            "reproduced": supported & (holm(p) < ALPHA),
            "contradicted": refuted & (holm(opposite) < ALPHA),
            "contradicted before": refuted,
        }


def _audit(
    x: Floats, kinds: list[paired_tests.Test], planned: int, found: dict[str, Bools]
) -> None:
    """Compare with the package's own family of verdicts at the last look."""
    for run, data in enumerate(x[:AUDITED]):
        cases = []
        for i, test in enumerate(kinds):
            stages = [[dict(enumerate(map(float, data[:end, i])))]
                      for end in alpha_spending.looks(planned)]  # fmt: skip
            row = {"test": test, "margin": margin(test)}
            cases.append(Case(row, [], stages, len(data), mean, planned=planned))
        family = Family.of(cases)
        for i, case in enumerate(cases):
            verdict = family.verdict(case, i)
            counted = [name for name in ("reproduced", "contradicted") if found[name][run, i]]
            if counted != [v for v in (verdict,) if v != "inconclusive"]:
                raise AssertionError(f"{kinds[i]}, plan {planned}: {verdict}, counted {counted}")


def _chunks(runs: int) -> Iterator[int]:
    for start in range(0, runs, CHUNK):
        yield min(CHUNK, runs - start)


def measure(generator: Callable[..., np.random.Generator], runs: int) -> Iterator[Json]:
    """Yield the counts of whole papers: wrong ones, and the planted effects that are found."""
    for law in (law for law in LAWS if law.marked):
        for paper in PAPERS:
            for size in SIZES:
                for planned in NUMBERS:
                    yield _nulls(generator, law, paper, size, planned, runs)
                    if paper == "superiority" and law is LAWS[0]:
                        yield _planted(generator, law, size, planned, runs)


def _nulls(
    generator: Callable[..., np.random.Generator], law: Law, paper: str, size: int, planned: int,
    runs: int,
) -> Json:  # fmt: skip
    """Count papers without any true effect in which something is decided at any look."""
    kinds = tests(paper, size)
    rng = generator("paper", paper, law.name, str(size), str(planned))
    counts: dict[str, int] = {}
    for first, chunk in enumerate(_chunks(runs)):
        x = draw(rng, law, chunk, planned, [boundary(test) for test in kinds])
        wrong: dict[str, Bools] = {}
        for found in verdicts(x, kinds, planned):
            for name, called in found.items():
                wrong[name] = wrong.get(name, np.zeros(chunk, dtype=bool)) | called.any(axis=1)
        if not first:
            _audit(x, kinds, planned, found)
        for name, called in wrong.items():
            counts[name] = counts.get(name, 0) + int(called.sum())
    return {"what": "nulls", "paper": paper, "law": law.name, "size": size, "n": planned,
            "runs": runs, **counts}  # fmt: skip


def _planted(
    generator: Callable[..., np.random.Generator], law: Law, size: int, planned: int, runs: int
) -> Json:  # fmt: skip
    """Count planted effects that are found by the end of the plan."""
    kinds = tests("superiority", size)
    effects = [PLANTED * (1 - i % 3) for i in range(size)]
    for_it, against = (np.array([effect * sign > 0 for effect in effects]) for sign in (1, -1))
    rng = generator("planted", law.name, str(size), str(planned))
    counts = dict.fromkeys(("reproduced", "contradicted", "contradicted before"), 0)
    for first, chunk in enumerate(_chunks(runs)):
        x = draw(rng, law, chunk, planned, effects)
        *_, found = verdicts(x, kinds, planned)
        if not first:
            _audit(x, kinds, planned, found)
        for name in counts:
            where = for_it if name == "reproduced" else against
            counts[name] += int(found[name][:, where].sum())
    return {"what": "planted", "paper": "superiority", "law": law.name, "size": size, "n": planned,
            "runs": runs, "for": runs * int(for_it.sum()), "against": runs * int(against.sum()),
            **counts}  # fmt: skip
