"""Types of a plan: range tests, arms, cells and shards, with the keys that identify them.

One hash is made per arm; a run key is derived from it and the seed when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from math import lcm
from typing import Any, cast

from cyclery.records import trial_selection
from cyclery.records.budgets import Ancestors, Measure
from cyclery.records.record import ArmSettings, RunSettings


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, shortened to 24 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class RangePlan:
    """A learning-rate range test: its settings, and one run per seed."""

    settings: ArmSettings
    label: str
    key: str
    seeds: tuple[int, ...]
    # What one sweep takes; see ``config.resolve.budget``.
    cost: dict[str, int]

    @property
    def views(self) -> int:
        """Images of all views that the network is trained on in one sweep."""
        return self.cost["views"]

    def run(self, seed: int) -> RunSettings:
        """Return the resolved settings of one sweep."""
        return cast(RunSettings, {**self.settings, "seed": seed})

    def run_key(self, seed: int) -> str:
        """Return the run key of one sweep."""
        return digest([self.key, seed])


@dataclass(frozen=True)
class Parent:
    """A parent of an arm, and which of its runs each seed of the child takes.

    ``same``: seed s of it. ``nested``: seed s // count, so that ``count`` seeds share one.
    ``members``: all of the seeds s * count to (s + 1) * count - 1.
    """

    arm: ArmPlan
    kind: str = "same"
    count: int = 1

    @property
    def identity(self) -> Any:
        """Return the part of a child's digest that stands for this parent."""
        return self.arm.digest if self.kind == "same" else [self.arm.digest, self.kind, self.count]

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return the parent's seeds that this seed of the child takes."""
        if self.kind == "nested":
            return (seed // self.count,)
        if self.kind == "members":
            return tuple(range(seed * self.count, (seed + 1) * self.count))
        return (seed,)


@dataclass(frozen=True)
class Trial:
    """A tuning trial of an arm, trained on tuning seeds that all seeds of the arm share."""

    arm: ArmPlan
    at: tuple[int, ...]

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seeds of tuning."""
        return self.at


@dataclass(frozen=True)
class Search:
    """An arm's random search, a run of its own: the study, and whose seed each run takes.

    ``share`` seeds in a row share a split, and the study that the first of them has; None where
    all seeds of the arm share one, on a split of its own.
    """

    arm: ArmPlan
    share: int | None

    @property
    def identity(self) -> list[Any]:
        """Return the part of an arm's digest that stands for its search."""
        return [self.arm.digest, self.share]

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seed of the study that this seed of the arm takes its values from."""
        if self.share is None:
            return (trial_selection.FIRST_SEED,)
        return (seed // self.share * self.share,)


@dataclass(frozen=True)
class ArmPlan:
    """One arm with everything that decides its numbers, except the seed."""

    paper: str
    experiment: str
    name: str
    settings: ArmSettings
    parents: dict[str, Parent]
    range: RangePlan | None
    cost: dict[str, int]
    # Factors that a trial of tuning puts on the arm's own values; empty for an arm itself.
    factors: dict[str, float] = field(default_factory=dict)
    # What the arm tries before its own runs, which take the best; empty where it is not tuned.
    trials: tuple[Trial, ...] = ()
    # What searches the arm's values before its own runs; None where nothing does.
    search: Search | None = None
    # What a study is of an arm, or a parent of its trials: ``search``, ``held-out``.
    variant: str = ""
    # How often it is redrawn, as an independent teacher (of such a teacher).
    redraws: int = 0

    @property
    def id(self) -> str:
        """Return ``paper/experiment/arm``, with its trial, variant and draw where it has one."""
        trial = f"~{self.variant}" if self.variant else ""
        trial += "".join(f"~{name}x{factor:g}" for name, factor in self.factors.items())
        return f"{self.paper}/{self.experiment}/{self.name}{trial}{'~other' * self.redraws}"

    @cached_property
    def digest(self) -> str:
        """Return the hash of everything but the seed, parents and range test included."""
        return digest(
            {
                **self.settings,
                "parents": {name: parent.identity for name, parent in self.parents.items()},
                "range": self.range.key if self.range else None,
                **({"tuned": self._tuned} if self.trials else {}),
                **({"searched": self.search.identity} if self.search else {}),
            }
        )

    def redrawn(self) -> ArmPlan:
        """Return the arm with new initial weights, order and noise, for all its ancestors too.

        With shared ancestors it would be no independent teacher. Seed s + 1
        would have another split, in which it may have been trained on what seed s is tested on.
        The bounds of a range test are part of the recipe.
        """
        return replace(
            self,
            settings={**self.settings, "draw": f"{self.settings['draw'] or ''}other"},
            parents={
                name: replace(parent, arm=parent.arm.redrawn())
                for name, parent in self.parents.items()
            },
            redraws=self.redraws + 1,
        )

    @property
    def _tuned(self) -> list[list[Any]]:
        """Return the hash and the seeds of every trial of tuning."""
        return [[trial.arm.digest, list(trial.at)] for trial in self.trials]

    @property
    def start(self) -> Parent | None:
        """The parent whose weights a run starts from; None where they are drawn."""
        return self.parents.get(self.settings["init"] or "")

    def ancestors(self, seed: int, which: Ancestors = "all") -> dict[str, ArmPlan]:
        """Return the runs that the run of a seed descends from, by their keys: each once.

        ``started`` are the run that its weights start from, the one that this started from, and so
        on; ``all`` are those of all parents, with every member of an ensemble.
        """
        found: dict[str, ArmPlan] = {}

        def visit(arm: ArmPlan, seed: int) -> None:
            parents = arm.parents.values() if which == "all" else filter(None, [arm.start])
            for parent in parents if which != "none" else ():
                for each in parent.seeds(seed):
                    key = parent.arm.key(each)
                    if key not in found:
                        found[key] = parent.arm
                        visit(parent.arm, each)

        visit(self, seed)
        return found

    def spent(self, measure: Measure, ancestors: Ancestors = "started", seed: int = 0) -> int:
        """Return what the run of a seed takes of a measure, with what its ``ancestors`` took.

        Arms are compared at equal ones. With ``started`` a budget is what is behind a run's
        weights: what its teachers took is a cost of the method besides.
        """
        before = self.ancestors(seed, ancestors).values()
        return self.cost[measure] + sum(arm.cost[measure] for arm in before)

    def searched(self, measure: Measure, seed: int = 0) -> int:
        """Return what range tests, trials and searches took, the run's own and its ancestors'.

        What a trial descends from is counted with it; each run and each sweep counts once.
        """
        arms = {arm.digest: arm for arm in with_ancestors([self])}
        needed = needed_seeds([(self, [seed])])
        runs = {arms[each].key(s): arms[each] for each, seeds in needed.items() for s in seeds}
        apart = runs.keys() - self.ancestors(seed).keys() - {self.key(seed)}
        return sum(runs[key].cost[measure] for key in apart) + sum(
            len(test.seeds) * test.cost[measure] for test in range_tests(arms.values())
        )

    @property
    def sources(self) -> Iterator[Parent | Trial | Search]:
        """Yield what must be trained before this arm: parents, trials of tuning, its search."""
        yield from self.parents.values()
        yield from self.trials
        if self.search:
            yield self.search

    def run_name(self, seed: int) -> str:
        """Return the name of a run among files: `paper.experiment.arm.s0`."""
        return f"{self.id.replace('/', '.')}.s{seed}"

    @cached_property
    def share(self) -> int:
        """Return how many consecutive seeds share a split or an ancestor: one independent unit."""
        found = [int(self.settings["split"]["share"])]
        for parent in self.parents.values():
            of_parent = parent.arm.share
            if parent.kind == "nested":
                found.append(of_parent * parent.count)
            else:  # `members` are count = 1 where the seed is the same
                found.append(-(-of_parent // parent.count))
        return lcm(*found)

    @cached_property
    def level(self) -> int:
        """Return the length of the longest chain of parents and trials."""
        return max((source.arm.level + 1 for source in self.sources), default=0)

    def key(self, seed: int) -> str:
        """Return the run key of one seed: ``digest([self.digest, seed])``, made 75,000 times."""
        return sha256(f'["{self.digest}",{seed}]'.encode()).hexdigest()[:24]

    def run(self, seed: int) -> RunSettings:
        """Return the resolved settings of one run, as the trainer and the record have them."""
        settings: RunSettings = {
            **self.settings,
            "seed": seed,
            "parents": {
                name: [parent.arm.key(each) for each in parent.seeds(seed)]
                for name, parent in self.parents.items()
            },
            "range": self.range.key if self.range else None,
            "tuned": self._tuned,
            "searched": "",
        }
        if not self.trials:
            del settings["tuned"]
        if self.search:
            [at] = self.search.seeds(seed)
            settings["searched"] = self.search.arm.key(at)
        else:
            del settings["searched"]
        return settings


@dataclass(frozen=True)
class Cell:
    """One arm with a block of seeds."""

    arm: ArmPlan
    seeds: tuple[int, ...]
    # Whether final weights are kept: because others start from them, or because all are.
    keep: bool = False

    @property
    def runs(self) -> Iterator[tuple[ArmPlan, int]]:
        """Yield the runs of the cell."""
        return ((self.arm, seed) for seed in self.seeds)


@dataclass(frozen=True)
class Shard:
    """The cells that one job trains in one process."""

    group: str
    name: str
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Return ``group/name``, as in the path of its records."""
        return f"{self.group}/{self.name}"

    @property
    def level(self) -> int:
        """Return the level of its cells in the chain of parents."""
        return self.cells[0].arm.level

    @property
    def arms(self) -> tuple[ArmPlan, ...]:
        """Return the arms of its cells."""
        return tuple(cell.arm for cell in self.cells)

    @property
    def runs(self) -> Iterator[tuple[ArmPlan, int]]:
        """Yield the runs of its cells."""
        return (run for cell in self.cells for run in cell.runs)

    @cached_property
    def digest(self) -> str:
        """Return the hash of its runs and kept weights; Snakemake repeats the job if it changes."""
        return digest([[cell.arm.digest, cell.seeds, cell.keep] for cell in self.cells])


def with_ancestors(arms: Iterable[ArmPlan], tuning: bool = True) -> Iterator[ArmPlan]:
    """Yield all arms, each after its ancestors and, with ``tuning``, what tunes it; none twice."""
    seen: set[str] = set()

    def visit(arm: ArmPlan) -> Iterator[ArmPlan]:
        if arm.digest not in seen:
            for source in arm.sources if tuning else arm.parents.values():
                yield from visit(source.arm)
            seen.add(arm.digest)
            yield arm

    for arm in arms:
        yield from visit(arm)


def needed_seeds(
    runs: Iterable[tuple[ArmPlan, Iterable[int]]], tuning: bool = True
) -> dict[str, set[int]]:
    """Return the seeds of arms and ancestors that runs need, by the arm's digest.

    With ``tuning`` those of trials and searches, too.
    """
    found: dict[str, set[int]] = {}

    def visit(arm: ArmPlan, seeds: Iterable[int]) -> None:
        known = found.setdefault(arm.digest, set())
        fresh = set(seeds) - known
        known |= fresh
        sources = arm.sources if tuning else arm.parents.values()
        for source in sources if fresh else ():
            visit(source.arm, {each for seed in fresh for each in source.seeds(seed)})

    for arm, seeds in runs:
        visit(arm, seeds)
    return found


def range_tests(arms: Iterable[ArmPlan]) -> list[RangePlan]:
    """Return the range tests that arms take their bounds from, each once."""
    return list({arm.range.key: arm.range for arm in arms if arm.range}.values())
