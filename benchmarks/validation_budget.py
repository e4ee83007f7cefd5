"""Evidence on a budget, simulated: how often it is wrong, and what it decides an hour.

    python benchmarks/validation_budget.py            # a few minutes of all cores
    python benchmarks/validation_budget.py --docs     # put what is stored into docs/validation.md

A paper has 20 comparisons in five experiments of four arms and the control that they share, in 15
claims of one or two comparisons, with 20 planned seeds. A seed of an experiment's arm costs between
one and ten seconds, log-uniformly. ``allocated`` is `cyclery.budget.choice` with what a look tells
it, in batches of a 24th of what all seeds cost; ``equal`` gives every arm a block of five seeds
in turn. Both are judged by the same rule at the seeds that they have. Stored are, in
results/published/validation/budget.json,

- ``errors``: papers in which something is decided wrongly, at whatever moment someone stops;
- ``speed``: claims decided within a share of the time that all seeds take, by either.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import validation_papers as papers
from validation import _generator
from validation_kinds import LAWS, Bools, Floats, Law

from cyclery.budget.choice import Question, Run, choose
from cyclery.budget.prospects import chances, unseen
from cyclery.common.files import write_atomic
from cyclery.evidence.comparison import Case
from cyclery.evidence.stats import alpha_spending
from cyclery.evidence.stats.contrasts import mean
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.evidence.verdicts import Family
from cyclery.records.claims import Test

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
STORED = Path("results/published/validation/budget.json")
MEASURED = Path("results/published/laptop/effects.csv")

SIZE, PLANNED, BLOCK, SHARED = 20, 20, alpha_spending.EVERY, papers.SHARED
CLAIMS = [0, 1, 1, 2] * (SIZE // SHARED)  # the claim of each comparison, within its experiment
DEAREST = 10.0
MOST = 0.9  # of the claims that all seeds decide
AUDITED = 20  # papers that the package judges too
BATCHES = 24  # of the time that all seeds take
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
PAPERS, TIMED, QUICK = 2_000, 240, 40
PARTS = 4  # of a cell, counted side by side
DESIGNS = ("allocated", "equal")
LOOKS = alpha_spending.looks(PLANNED)
ARMS = [(f"{c // SHARED}", f"{c // SHARED}.{c % SHARED}") for c in range(SIZE)]


@dataclass
class Paper:
    """One simulated paper: what every look would say, and what a seed costs."""

    x: Floats  # differences [seeds, comparisons]
    tests: list[Test]
    said: list[tuple[Floats, Floats, Bools, Bools]]  # of every look; see ``papers.looks``
    costs: Floats  # of a run, by experiment
    known: dict[Any, tuple[float, ...]] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        """Return what all seeds of all arms cost."""
        return float(self.costs.sum() * (SHARED + 1) * PLANNED)

    def arms(self, comparison: int) -> tuple[str, str]:
        """Return the arms of a comparison: the control of its experiment, and its own."""
        return ARMS[comparison]

    @property
    def all_arms(self) -> list[str]:
        """Return all arms, experiment by experiment."""
        return list(dict.fromkeys(arm for c in range(SIZE) for arm in sorted(self.arms(c))))

    def cost(self, arm: str) -> float:
        """Return what a seed of an arm costs."""
        return float(self.costs[int(arm.partition(".")[0])])

    def reached(self, comparison: int, seeds: dict[str, int]) -> int:
        """Return how many looks a comparison has reached."""
        least = min(seeds[arm] for arm in self.arms(comparison))
        return sum(end <= least for end in LOOKS)

    def verdicts(self, seeds: dict[str, int]) -> tuple[list[str | None], tuple[int, int]]:
        """Return the verdicts at these seeds, and how much error Holm's correction leaves."""
        looks = [self.reached(c, seeds) for c in range(SIZE)]
        at = [self.said[look - 1] if look else None for look in looks]
        p = ([one[kind][c] if one else 1.0 for c, one in enumerate(at)] for kind in (0, 1))
        adjusted = papers.holm(np.array(list(p)))
        found: list[str | None] = []
        for c, one in enumerate(at):
            reproduced = one is not None and one[2][c] and adjusted[0][c] < ALPHA
            contradicted = one is not None and one[3][c] and adjusted[1][c] < ALPHA
            found.append("reproduced" if reproduced else "contradicted" if contradicted else None)
        left = tuple(max(1, SIZE - int((p < ALPHA).sum())) for p in adjusted)
        return found, left  # type: ignore[return-value]

    def claims(self, verdicts: list[str | None]) -> int:
        """Return how many claims have a verdict: one comparison that is decided makes it."""
        return len({(c // SHARED, CLAIMS[c]) for c, verdict in enumerate(verdicts) if verdict})

    def questions(self, seeds: dict[str, int]) -> Iterator[Question]:
        """Yield what is undecided, with its chances."""
        verdicts, left = self.verdicts(seeds)
        has_one = {(c // SHARED, CLAIMS[c]) for c, verdict in enumerate(verdicts) if verdict}
        for c in (c for c, verdict in enumerate(verdicts) if not verdict):
            claim = c // SHARED, CLAIMS[c]
            reached = self.reached(c, seeds)
            yield Question(
                f"{claim}", f"{c}", self.arms(c), LOOKS[reached:],
                self._chances(c, reached, left), CLAIMS[:SHARED].count(claim[1]),
                claim not in has_one,
            )  # fmt: skip

    def _chances(self, c: int, reached: int, left: tuple[int, int]) -> tuple[float, ...]:
        if (c, reached, left) not in self.known:
            if not reached:
                found = unseen(PLANNED, 1, left[0])
            else:
                x = self.x[: LOOKS[reached - 1], c]
                test = self.tests[c]
                found = chances(test, papers.margin(test), float(x.mean()), float(x.std(ddof=1)),
                                len(x), PLANNED, 1, reached, left)  # fmt: skip
            self.known[c, reached, left] = found
        return self.known[c, reached, left]


@dataclass(frozen=True)
class Step:
    """The verdicts after a batch, with the seconds spent so far and the seeds of every arm."""

    spent: float
    seeds: dict[str, int]
    verdicts: list[str | None]


Course = list[Step]


def allocated(paper: Paper) -> Course:
    """Return the course of `cyclery decide`, until all is decided or hopeless."""
    seeds = dict.fromkeys(paper.all_arms, 0)
    spent, course = 0.0, [Step(0.0, seeds, paper.verdicts(seeds)[0])]

    while True:
        missing = cache(partial(_missing, paper, seeds))
        asked = choose(paper.questions(seeds), seeds, missing, paper.whole / BATCHES)
        if asked == seeds:
            return course
        spent += sum((asked[arm] - seeds[arm]) * paper.cost(arm) for arm in seeds)
        seeds = asked
        course.append(Step(spent, seeds, paper.verdicts(seeds)[0]))


def _missing(paper: Paper, seeds: dict[str, int], arm: str, end: int) -> dict[Run, float]:
    """Return the blocks that an arm lacks, with what they cost."""
    block = BLOCK * paper.cost(arm)
    return {(arm, last): block for last in LOOKS if seeds[arm] < last <= end}


def equal(paper: Paper) -> Course:
    """Return the course of blocks for all arms in turn."""
    seeds = dict.fromkeys(paper.all_arms, 0)
    spent, course = 0.0, [Step(0.0, seeds, paper.verdicts(seeds)[0])]
    for _ in range(PLANNED // BLOCK):
        for arm in seeds:
            seeds = {**seeds, arm: seeds[arm] + BLOCK}
            spent += BLOCK * paper.cost(arm)
            course.append(Step(spent, seeds, paper.verdicts(seeds)[0]))
    return course


def simulate(
    rng: np.random.Generator, law: Law, tests: list[Test], effects: Callable[[], list[float]],
    count: int,
) -> Iterator[Paper]:  # fmt: skip
    """Yield papers."""
    for _ in range(count):
        x = papers.draw(rng, law, 1, PLANNED, effects())
        said = [tuple(each[0] for each in one) for one in papers.looks(x, tests, PLANNED)]
        costs = DEAREST ** rng.random(SIZE // SHARED)
        yield Paper(x[0], tests, said, costs)  # type: ignore[arg-type]


# A law, the tests of a paper, and whether two thirds of the comparisons have an effect.
ERRORS = (
    *((law, "superiority", False) for law in LAWS if law.marked),
    (LAWS[0], "mixed", False),
    (LAWS[0], "superiority", True),
)


def errors(cell: int, part: int, count: int) -> Counter[str]:
    """Count papers in which something false is said after any batch."""
    law, name, planted = ERRORS[cell]
    tests = papers.tests(name, SIZE)
    edge = [papers.boundary(test) for test in tests]
    true = [e + papers.PLANTED * (1 - c % 3) * planted for c, e in enumerate(edge)]
    rng = _generator("budget", law.name, name, str(planted), str(part))
    wrong = Counter(runs=count, reproduced=0, contradicted=0)
    for number, paper in enumerate(simulate(rng, law, tests, partial(list, true), count)):
        course = allocated(paper)
        if number < AUDITED:
            audit(paper, course)
        for verdict, sign in (("reproduced", 1), ("contradicted", -1)):
            false = [c for c in range(SIZE) if sign * (true[c] - edge[c]) <= 0]
            wrong[verdict] += any(step.verdicts[c] == verdict for step in course for c in false)
    return wrong


def measured_effects() -> Floats:
    """Return the standardised effects of superiority that the published laptop tier measured."""
    found = []
    with (ROOT / MEASURED).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["low"] and row["high"] and int(row["n"]) >= 10:
                # The interval of the last look is near the ordinary one.
                sd = (float(row["high"]) - float(row["low"])) / 2 * int(row["n"]) ** 0.5 / 2.09
                if sd:
                    found.append(float(row["effect"]) / sd)
    return np.array(found)


MIXES = ("a third each 1.5, 0 and -1.5", "half 0, half 0.8 either way", "as measured at `laptop`")


def speeds(cell: int, part: int, count: int) -> Counter[str]:
    """Sum the claims decided within shares of the time that all seeds take, and what they took."""
    rng, pool = _generator("effects", str(part)), measured_effects()
    effects: Callable[[], list[float]] = (
        lambda: [papers.PLANTED * (1 - c % 3) for c in range(SIZE)],
        lambda: [0.8 * (c % 2) * (-1) ** (c // 2) for c in range(SIZE)],
        lambda: [float(d) for d in rng.choice(pool, SIZE)],
    )[cell]
    found: Counter[str] = Counter(runs=count)
    tests = papers.tests("superiority", SIZE)
    for paper in simulate(
        _generator("speed", str(cell), str(part)), LAWS[0], tests, effects, count
    ):
        courses = {"allocated": allocated(paper), "equal": equal(paper)}
        wanted = MOST * paper.claims(courses["equal"][-1].verdicts)
        for design, course in courses.items():
            for share in SHARES:
                *_, last = (one for one in course if one.spent <= share * paper.whole + 1e-9)
                found[f"{design} {share}"] += paper.claims(last.verdicts)
            there = (one.spent for one in course if paper.claims(one.verdicts) >= wanted)
            # Who gives up before has still to do what equal seeds do.
            found[f"{design} most"] += next(there, paper.whole) / paper.whole  # type: ignore[assignment]
        found["ended"] += courses["allocated"][-1].spent / paper.whole  # type: ignore[assignment]
    return found


def audit(paper: Paper, course: Course) -> None:
    """Raise an AssertionError where a course loses a verdict, or the package judges otherwise."""
    for before, after in pairwise(course):
        assert after.spent > before.spent
        for had, has in zip(before.verdicts, after.verdicts, strict=True):
            assert not had or had == has, (before, after)
    for step in (course[len(course) // 2], course[-1]):
        cases = []
        for c, test in enumerate(paper.tests):
            least = min(step.seeds[arm] for arm in paper.arms(c))
            stages = [[dict(enumerate(map(float, paper.x[:end, c])))]
                      for end in LOOKS if end <= least]  # fmt: skip
            row: Any = {"test": test, "margin": papers.margin(test)}
            cases.append(Case(row, [], stages, least, mean, planned=PLANNED))
        family = Family.of(cases)
        for c, case in enumerate(cases):
            said = family.verdict(case, c)
            if said != (step.verdicts[c] or "inconclusive"):
                raise AssertionError(f"{case.test}: {said}, counted {step.verdicts[c]}")


def measure(runs: int, timed: int, workers: int) -> Json:
    """Return all counts; parts of cells are counted side by side."""
    start = time.perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        parts = {
            (count, cell): [pool.submit(count, cell, part, size // PARTS) for part in range(PARTS)]
            for count, cells, size in ((errors, ERRORS, runs), (speeds, MIXES, timed))
            for cell in range(len(cells))
        }
        sums = {key: sum((part.result() for part in some), Counter[str]())
                for key, some in parts.items()}  # fmt: skip
    wrong, sped = ([found for (count, _), found in sums.items() if count is which]
                   for which in (errors, speeds))  # fmt: skip
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "alpha": ALPHA,
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__},
        "errors": [
            {"paper": name, "law": law.name,
             "what": "effects in two thirds" if planted else "no effect anywhere",
             **{key: found[key] for key in ("runs", "reproduced", "contradicted")}}
            for (law, name, planted), found in zip(ERRORS, wrong, strict=True)
        ],
        "speed": [
            {"effects": name, "runs": found["runs"],
             "claims": len(set(CLAIMS)) * SIZE // SHARED,
             "at": [{"share": share, **{design: found[f"{design} {share}"] for design in DESIGNS}}
                    for share in SHARES],
             "ended": found["ended"] / found["runs"],
             "most": {design: found[f"{design} most"] / found["runs"] for design in DESIGNS}}
            for name, found in zip(MIXES, sped, strict=True)
        ],
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }  # fmt: skip


def main() -> int:
    """Run the command; return 1 where a pass mark is missed."""
    import validation_budget_page as page

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} papers; nothing stored")
    parser.add_argument("--docs", action="store_true", help="measure nothing; write the page")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    if options.docs:
        page.write(ROOT, ROOT / STORED)
        return 0
    sizes = (QUICK, QUICK) if options.quick else (PAPERS, TIMED)
    found = measure(*sizes, options.workers)
    if not options.quick:
        write_atomic(ROOT / STORED, page.dumps(found))
    print(page.section(found))
    return int(bool(page.missed(found)))


if __name__ == "__main__":
    raise SystemExit(main())
