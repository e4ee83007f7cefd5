"""What the claims stand at: their verdicts, what is undecided, and what more seeds would cost.

Read from the evidence, the plan and the run store; ``choice`` decides by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from statistics import median

from cyclery.budget.choice import FUTILE, Question, Run
from cyclery.budget.prospects import chances, spread, unseen
from cyclery.common.errors import UserError, choices, nearest
from cyclery.config.comparisons import Comparison
from cyclery.config.models import Claim
from cyclery.evidence.stats import alpha_spending
from cyclery.evidence.stats.paired_tests import ALPHA
from cyclery.plan.cost import seconds
from cyclery.plan.graph import RANGE_ARM, Plan
from cyclery.plan.model import ArmPlan, needed_seeds, with_ancestors
from cyclery.records.claims import DECIDED, Row, Verdict
from cyclery.records.claims import Claim as Judged
from cyclery.records.readers import read_evidence
from cyclery.records.run_store import Store

# Seconds in which a paper's evidence is made, whatever was trained: its price in every batch.
JUDGING = 8.0


@dataclass(frozen=True)
class Stand:
    """A claim as its evidence says it, and what it asks still.

    ``hopeless`` are undecided comparisons that get no more seeds, each with the reason; ``ended``
    are those at the end of their plan.
    """

    name: str
    verdict: Verdict
    reason: str
    questions: tuple[Question, ...] = ()
    hopeless: tuple[str, ...] = ()
    ended: int = 0
    # All that any of its comparisons needs.
    arms: tuple[str, ...] = ()

    @property
    def hope(self) -> float:
        """Return the best chance of its questions to be decided by the end of their plans."""
        return max((question.hope for question in self.questions), default=0.0)


def wanted(plan: Plan, parts: Sequence[str]) -> dict[str, list[str]]:
    """Return the claims that are meant, by paper; without parts all that the tier tests.

    Raises:
        UserError: a part is no paper or claim, or names no claim that the tier tests.
    """
    found: dict[str, list[str]] = {}
    for part in parts or plan.project.selected():
        plan.part_arms(part)  # It says which names there are.
        paper, _, name = part.partition(".")
        claims = plan.project.papers[paper].claims
        if name and name not in claims:
            raise UserError(
                f"{part!r} is an experiment; name a paper or a claim.{nearest(name, claims)} "
                f"Claims: {choices(claims)}."
            )
        tested = [each for each in ([name] if name else claims) if _tested(plan, paper, each)]
        if name and not tested:
            raise UserError(f"{part!r} is not tested at tier {plan.tier!r}.")
        if tested:
            found[paper] = list(dict.fromkeys([*found.get(paper, []), *tested]))
    if not found:
        raise UserError(f"no claim of {choices(parts)} is tested at tier {plan.tier!r}.")
    return found


def _tested(plan: Plan, paper: str, name: str) -> bool:
    claim = plan.project.papers[paper].claims[name]
    return not plan.untested(claim) and any(
        plan.comparison_arms(paper, comparison) for comparison in claim.comparisons
    )


@dataclass
class Costs:
    """What arms have on disk, and what they lack, as it was when ``read`` was called last."""

    plan: Plan
    _missing: dict[tuple[str, int], dict[Run, float]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _seconds: dict[str, float] = field(default_factory=dict)
    _speeds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open the run store."""
        self._store = Store(self.plan.project.results / "store")

    def read(self, names: Iterable[str]) -> None:
        """Read what arms have and take, and their ancestors: the first run of each says it."""
        self._missing.clear()
        [first] = self.plan.first(1)
        rates: dict[str, list[float]] = {}
        for arm in with_ancestors(map(self.arm, names)):
            if arm.digest not in self._seconds and self._ended(key := arm.key(first)):
                record = self._store.read(key)
                if record and record["kind"] == "run" and record["status"] == "done":
                    self._seconds[arm.digest] = record["seconds"]
            if arm.digest in self._seconds:
                rate = arm.cost["views"] / self._seconds[arm.digest]
                rates.setdefault(arm.settings["model"]["name"], []).append(rate)
        self._speeds = {network: median(each) for network, each in rates.items()}

    def arm(self, name: str) -> ArmPlan:
        """Return the arm ``paper.experiment.arm``."""
        paper, experiment, arm = name.split(".")
        return self.plan.arm(paper, experiment, arm)

    def on_disk(self, name: str, most: int) -> int:
        """Return how many seeds of an arm have ended without a gap, of so many at most."""
        arm = self.arm(name)
        ended = (self._ended(arm.key(seed)) for seed in self.plan.first(most))
        return next((count for count, has in enumerate(ended) if not has), most)

    def missing(self, name: str, seeds: int) -> dict[Run, float]:
        """Return the runs that an arm lacks to have so many seeds, with seconds of one core.

        Its ancestors and what tunes them are among them, and the evidence of its paper.
        """
        if (name, seeds) not in self._missing:
            arm = self.arm(name)
            family = {each.digest: each for each in with_ancestors([arm])}
            needed = needed_seeds([(arm, self.plan.first(seeds))])
            found: dict[Run, float] = {
                key: self._run_seconds(family[digest])
                for digest, each in needed.items()
                for key in map(family[digest].key, sorted(each))
                if not self._ended(key)
            }
            if found:
                found["evidence", arm.paper] = JUDGING
            self._missing[name, seeds] = found
        return self._missing[name, seeds]

    def _ended(self, key: str) -> bool:
        if key not in self._done and self._store.status(key) in ("done", "diverged"):
            self._done.add(key)
        return key in self._done

    def _run_seconds(self, arm: ArmPlan) -> float:
        """Return what a run takes: as its first one did, else by the network's speed here."""
        known = self._seconds.get(arm.digest)
        return seconds(self.plan, arm, self._speeds) if known is None else known


def stands(plan: Plan, claims: Mapping[str, Sequence[str]]) -> list[Stand]:
    """Return what claims, by paper, stand at by the evidence on disk."""
    return [
        stand
        for paper, names in claims.items()
        for stand in of_paper(plan, paper, names, _judged(evidence_file(plan, paper)))
    ]


def evidence_file(plan: Plan, paper: str) -> Path:
    """Return the evidence of a paper."""
    return plan.project.results / plan.tier / "evidence" / f"{paper}.json"


def _judged(path: Path) -> list[Judged]:
    return read_evidence(path)["claims"] if path.exists() else []


def of_paper(
    plan: Plan, paper: str, names: Sequence[str], found: Sequence[Judged]
) -> Iterator[Stand]:
    """Yield what claims of a paper stand at, where these are its judged claims."""
    declared = plan.project.papers[paper].claims
    judged = {claim["id"]: claim for claim in found}
    family = {
        name: claim for name, claim in declared.items()
        if not plan.untested(claim) and claim.comparisons
    }  # fmt: skip
    rows: dict[str, list[Row | None]] = {}
    for name, claim in family.items():
        count = 1 if claim.pooled else len(claim.comparisons)
        said: list[Row] = judged[name]["comparisons"][:count] if name in judged else []
        # Evidence of another state of the paper's file says nothing.
        rows[name] = list(said) if len(said) == count else [None] * count
    left = _left([row for each in rows.values() for row in each])
    for name in names:
        claim, of = declared[name], rows[name]
        one = judged.get(name)
        verdict, reason = (one["verdict"], one["reason"]) if one else ("not run", "")
        yield _stand(plan, paper, name, claim, of, left, verdict, reason)


def _left(rows: Sequence[Row | None]) -> tuple[int, int]:
    """Return what Holm's correction divides the error by next, for tests and for opposites."""
    tests = [row["p_holm"] for row in rows if row and row["p_holm"] is not None]
    opposites = [row["p_opposite_holm"] for row in rows
                 if row and row["p_opposite_holm"] is not None]  # fmt: skip
    own, opposite = (len(rows) - sum(p < ALPHA for p in some) for some in (tests, opposites))
    return max(1, own), max(1, opposite)


def _stand(
    plan: Plan, paper: str, name: str, claim: Claim, rows: Sequence[Row | None],
    left: tuple[int, int], verdict: Verdict, reason: str,
) -> Stand:  # fmt: skip
    planned = plan.planned(claim)
    groups = [claim.comparisons] if claim.pooled else [[c] for c in claim.comparisons]
    questions: list[Question] = []
    hopeless: list[str] = []
    ended, arms = 0, dict[str, None]()
    for place, (row, compared) in enumerate(zip(rows, groups, strict=True)):
        own = list(dict.fromkeys(".".join(a) for c in compared
                                 for a in plan.comparison_arms(paper, c)))  # fmt: skip
        arms |= dict.fromkeys(own)
        if not own or (row and row["verdict"] in DECIDED):
            continue
        shape = _shape(plan, paper, compared, planned)
        reached = row["look"]["number"] if row and row["look"] else 0
        ends = alpha_spending.looks(*shape)[reached:]
        if not ends:
            ended += 1
            continue
        found = _chances(row, shape, reached, left)
        if isinstance(found, str):
            hopeless.append(found)
            continue
        question = Question(f"{paper}.{name}", f"{paper}.{name}[{place}]", tuple(own), ends, found,
                            len(groups), verdict not in DECIDED)  # fmt: skip
        questions.append(question)
        if question.hope < FUTILE:
            hopeless.append(f"{100 * question.hope:.1f} % chance by {ends[-1]} seeds")
    return Stand(f"{paper}.{name}", verdict, reason, tuple(questions), tuple(hopeless), ended,
                 tuple(arms))  # fmt: skip


def _shape(
    plan: Plan, paper: str, compared: Sequence[Comparison], planned: int
) -> tuple[int, int]:  # fmt: skip
    """Return the planned seeds of comparisons, and how many in a row are one unit."""
    shares = [1]
    for comparison in compared:
        arms = [plan.arm(*name) for name in plan.comparison_arms(paper, comparison)]
        shares += [arm.share for arm in arms]
        if any(RANGE_ARM in group.arms for group in comparison.groups()):
            # A range test has as many sweeps as it declares.
            planned = min([planned, *(len(arm.range.seeds) for arm in arms if arm.range)])
    return planned, lcm(*shares)


def _chances(
    row: Row | None, shape: tuple[int, int], reached: int, left: tuple[int, int]
) -> tuple[float, ...] | str:  # fmt: skip
    """Return the chances of the looks to come, or why there are none."""
    if row and row["held_back"]:
        return "runs that diverged could have made its verdict"
    if row is None or row["effect"] is None or row["n"] < 2:
        return unseen(*shape, left[0])[reached:]
    sd = spread(row["naive95"], row["n"])
    if sd is None:
        return f"its {row['n']} differences have no spread"
    return chances(row["test"], row["margin"], row["effect"], sd, row["n"], *shape, reached, left)
