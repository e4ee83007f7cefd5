"""Which seeds come next: those whose looks decide most claims a second.

Pure arithmetic on what is known; ``standing`` collects that. A *question* is an undecided
comparison of a claim, or its pooled mean. Its next step is one look further, for which each of its
arms must have the seeds of that look. Steps are ranked by the best of the looks to come: the
claims that reaching it would decide, over the seconds of the runs that are missing for it. So a
first look, whose boundary hardly anything crosses, is not starved, and arms that several questions
share count for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, prod

Run = tuple[str, str | int] | str
"""What is paid for once, whoever needs it: a run, by its key."""
Missing = Callable[[str, int], Mapping[Run, float]]
"""The runs that an arm lacks, ancestors included, to have so many seeds, with their seconds."""

# A question whose chance to be decided at all is below this gets no more seeds.
FUTILE = 0.05


@dataclass(frozen=True)
class Question:
    """An undecided comparison, or pooled mean, of a claim.

    ``ends`` are the seeds of the looks to come, ``chances`` how likely each of them decides it;
    ``of`` is how many comparisons the claim is judged by, ``first`` whether none is decided.
    """

    claim: str
    name: str
    arms: tuple[str, ...]
    ends: tuple[int, ...]
    chances: tuple[float, ...]
    of: int = 1
    first: bool = True

    @property
    def hope(self) -> float:
        """Return the chance that it is decided by the end of its plan."""
        return max(self.chances, default=0.0)

    def chance(self, asked: Mapping[str, int]) -> float:
        """Return the chance that the last look which these seeds reach decides it."""
        least = min([asked[arm] for arm in self.arms])
        found = 0.0
        for end, chance in zip(self.ends, self.chances, strict=True):
            if end > least:
                break
            found = max(found, chance)
        return found


def choose(
    questions: Iterable[Question], seeds: Mapping[str, int], missing: Missing,
    batch: float, most: float = inf, futile: float = FUTILE,
) -> dict[str, int]:  # fmt: skip
    """Return the seeds of arms after the best steps, about a batch of them.

    At most one look further for each question, for what it says changes everything after it. The
    best step is taken even if it is longer than a batch: passed over for cheaper ones it would wait
    until nothing cheap is left.

    Args:
        questions: what is undecided.
        seeds: what every arm has.
        missing: the runs that arms lack.
        batch: seconds of runs after which what they say should be seen.
        most: seconds that are left; what takes longer is passed over.
        futile: questions with less hope than this get no seeds.
    """
    open_ = [q for q in questions if q.ends and q.hope >= futile]
    near = [[p for p in open_ if not set(p.arms).isdisjoint(q.arms)] for q in open_]
    asked, taken = dict(seeds), dict[Run, float]()
    left = dict(enumerate(open_))
    rates: dict[int, tuple[float, dict[Run, float]]] = {}
    while left:
        for place, question in left.items():
            if place not in rates:
                rates[place] = _rate(question, near[place], asked, taken, missing)
        place = max(left, key=lambda each: (rates[each][0], -each))
        question, runs = left.pop(place), rates[place][1]
        total = sum(taken.values()) + sum(runs.values())
        if total > most:
            continue
        if taken and total > batch:
            break
        taken |= runs
        asked |= {arm: max(asked[arm], question.ends[0]) for arm in question.arms}
        for other in [i for i, q in left.items() if not set(q.arms).isdisjoint(question.arms)]:
            del rates[other]
    return asked


def _rate(
    question: Question, near: Iterable[Question], asked: Mapping[str, int],
    taken: Mapping[Run, float], missing: Missing,
) -> tuple[float, dict[Run, float]]:  # fmt: skip
    """Return the claims that a question's best look decides a second, and the next step's runs."""
    found, step, near = 0.0, dict[Run, float](), list(near)
    before = decided(near, asked)
    for number, end in enumerate(question.ends):
        then = {**asked, **{arm: max(asked[arm], end) for arm in question.arms}}
        runs = {run: cost for arm in question.arms for run, cost in missing(arm, end).items()
                if run not in taken}  # fmt: skip
        if not number:
            step = runs
        gain, cost = decided(near, then) - before, sum(runs.values())
        found = max(found, gain / cost if cost else inf)
    return found, step


def decided(questions: Iterable[Question], asked: Mapping[str, int]) -> float:
    """Return how many claims the looks that these seeds reach may be expected to decide.

    Half of a claim is its first verdict, half that all of its comparisons have one: it is "partly
    reproduced" only once the others have failed.
    """
    claims: dict[str, list[tuple[Question, float]]] = {}
    for question in questions:
        claims.setdefault(question.claim, []).append((question, question.chance(asked)))
    total = 0.0
    for found in claims.values():
        some = 1 - prod(1 - chance for _, chance in found) if found[0][0].first else 0.0
        total += (some + sum(chance / question.of for question, chance in found)) / 2
    return total
