"""Measure how often the rule of verdicts is wrong, by simulation, and what its intervals cover.

    python benchmarks/validation.py            # about a minute of one core
    python benchmarks/validation.py --docs     # put what is stored into docs/validation.md

Stored are, in results/published/validation/verdicts.json, counts of simulated data sets:

- ``false``: a true effect at the edge of a test's null is called reproduced; at fixed numbers of
  seeds, and where someone looks after every block of five and stops at the first "reproduced":
  with the levels that looks may spend, and with the naive ones that the rule does not use;
- ``power``: a planted effect is called reproduced, with the looks that it took;
- ``coverage``: an interval covers the truth;
- ``papers``: something in a whole paper is decided wrongly, and what the correction costs in power
  (validation_papers.py).

A kind of test is one entry of ``KINDS`` in validation_kinds.py. Counting is vectorised over data
sets; of each cell the first ones are judged by the package's own code too, and any disagreement is
an error.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import validation_papers as papers
from validation_kinds import (
    KINDS,
    LAWS,
    Bools,
    Floats,
    Kind,
    Law,
    Level,
    differing,
    pooled_bounds,
    single,
    suits,
    t_bounds,
)  # fmt: skip

from cyclery.common.files import write_atomic
from cyclery.evidence.stats import alpha_spending, paired_tests
from cyclery.evidence.stats.paired_tests import ALPHA

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
STORED = Path("results/published/validation/verdicts.json")
RUNS, QUICK = 20_000, 1_000
SEEDS, PLANS = (3, 5, 10, 20), (10, 20, 50)
MOST = max(PLANS)
AUDITED = 10  # data sets of a cell that the package judges too
BOOTSTRAPPED = 1_000


# Measuring.


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()) for name in names])


def _plain(alpha: float) -> float:
    return alpha


def _at(planned: int, look: int) -> Level:
    """Return the nominal level of a look for an overall error."""
    return lambda alpha: alpha_spending.levels(alpha, planned)[look]


def _audit(kind: Kind, x: Floats, planned: int | None, called: Bools) -> None:
    """Compare with the package's own verdicts."""
    for data, found in zip(x[:AUDITED], called[:AUDITED], strict=True):
        verdict = kind.judge(data, planned)
        if (verdict == "reproduced") != found:
            raise AssertionError(f"{kind.name}, plan {planned}: {verdict}, counted {found}: {data}")


def _looks(kind: Kind, x: Floats) -> dict[int, Callable[[Level], Bools]]:
    """Return what says "reproduced" at every number of seeds that some design looks at."""
    ends = {*SEEDS, *(end for planned in PLANS for end in alpha_spending.looks(planned))}
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
    ends = alpha_spending.looks(planned)
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
        called = np.any([looks[end](_plain) for end in alpha_spending.looks(planned)], axis=0)
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
        called, ends = _planned(kind, x, looks, planned), np.array(alpha_spending.looks(planned))
        used = np.where(called.any(axis=0), ends[called.argmax(axis=0)], planned)
        yield {**head, "design": "spent", "n": planned, "count": int(called.any(axis=0).sum()),
               "stated": None, "mean_seeds": float(used.mean())}  # fmt: skip


def coverages(law: Law, runs: int) -> Iterator[Json]:
    """Yield how often intervals at 95 % cover the truth, 0."""
    for name, draw, interval in (
        ("t", single, t_bounds),
        ("pooled, unlike experiments", partial(differing, 0.3), pooled_bounds),
    ):
        x = draw(_generator("coverage", name, law.name), law, (runs, MOST), 0.0)
        for n in SEEDS:
            yield _covered(f"{name}, one look", law, n, _holds(*interval(x[:, :n])(ALPHA / 2)))
        for planned in PLANS:
            ends = alpha_spending.looks(planned)
            bounds = [interval(x[:, :end]) for end in ends]
            spent = [_holds(*bounds[i](_at(planned, i)(ALPHA / 2))) for i in range(len(ends))]
            naive = [_holds(*bounds[i](ALPHA / 2)) for i in range(len(ends))]
            for words, holds in (("spent levels", spent), ("naive", naive)):
                # Who stops once an interval excludes 0 is left with one that does.
                every = np.all(holds, axis=0)
                yield _covered(f"{name}, {words}, every look", law, planned, every)
            yield _covered(f"{name}, spent levels, last look", law, planned, spent[-1])
    for n in (size for size in SEEDS if size >= paired_tests.BOOTSTRAP_FROM):
        x = law.draw(_generator("bca", law.name), (min(runs, BOOTSTRAPPED), n))
        found = [paired_tests.bca(data) or (np.nan, np.nan) for data in x]
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
        "false": [], "power": [], "coverage": [], "papers": [],
    }  # fmt: skip
    for law in LAWS:
        for kind in (kind for kind in KINDS if suits(kind, law)):
            own = min(runs, kind.most or runs)
            found["false"] += false_rates(kind, law, own)
            if law.marked:
                found["power"] += powers(kind, law, own)
        found["coverage"] += coverages(law, runs)
        print(f"{law.name}: {time.process_time() - start:.0f} s", flush=True)
    found["papers"] = list(papers.measure(_generator, runs))
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
    cells = f"{len(found['false'])} rates and {len(found['papers'])} kinds of papers"
    print(f"{cells} in {found['seconds']} s, {len(missed)} above their mark")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
