"""Batch after batch, until the time is up or no seed is worth it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cyclery.budget import batches, view
from cyclery.budget.choice import FUTILE, choose
from cyclery.budget.standing import Costs, Stand, stands, wanted
from cyclery.common.errors import UserError
from cyclery.config.load import Project, load
from cyclery.plan import allocation
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check

# A batch lasts this share of the time that was given, within these seconds.
SHARE, SHORTEST, LONGEST = 1 / 24, 60.0, 600.0
# Its runs take so many times what a batch takes besides, or more.
LEAST = 3


@dataclass
class Deciding:
    """One call of the command."""

    project: Project
    options: argparse.Namespace
    clock: Callable[[], float] = time.monotonic
    shown: view.View = field(init=False)

    def __post_init__(self) -> None:
        """Plan every claim to the end of its plan, so that all that may come is checked first."""
        project, options = self.project, self.options
        short = Plan(project)
        self.claims = wanted(short, options.part)
        papers = project.papers
        self.most = max(short.planned(papers[paper].claims[name])
                        for paper, names in self.claims.items() for name in names)  # fmt: skip
        self.plan = check(load(project.root, {**project.overrides, "seeds": self.most}))
        self.runner = short
        self.path = allocation.place(project.results, self.plan.tier)
        self.costs = Costs(self.plan)
        self.until = self.clock() + 3600 * options.hours
        cores = os.cpu_count() or 1 if options.cores == "all" else int(options.cores)
        self.pace = batches.Pace(cores)
        self.futile = 0.0 if options.all else FUTILE
        self.shown = view.View(self.plan.tier, self.futile)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - self.clock()

    def run(self) -> None:
        """Make batches until there is nothing worth it, or no time for it."""
        seeds = self._begin()
        self._have_evidence(seeds)
        found = stands(self.plan, self.claims)
        self.before = dict(seeds)
        try:
            with self.shown.live():
                self.shown.update(found, seeds)
                while asked := self._next(found, seeds):
                    self._batch(asked, seeds)
                    seeds = asked
                    found = stands(self.plan, self.claims)
                    self.shown.update(found, seeds)
        finally:
            self.shown.end(stands(self.plan, self.claims), self.before, seeds)

    def _begin(self) -> dict[str, int]:
        """Return the seeds of all arms of the papers: what is on disk, and was asked for before."""
        own = {".".join(name): 0 for paper in self.claims for name in self.plan.part_arms(paper)}
        self.costs.read(own)
        old = allocation.read(self.path)
        return {name: max(old.get(name, 0), self.costs.on_disk(name, self.most)) for name in own}

    def _write(self, seeds: Mapping[str, int]) -> None:
        """Write the allocation; arms of other papers keep what they have."""
        papers = self.plan.project.papers
        others = {
            name: count
            for name, count in allocation.of_others(allocation.read(self.path), self.claims).items()
            if name.partition(".")[0] in papers
        }
        allocation.write(self.path, {**others, **seeds})

    def _have_evidence(self, seeds: Mapping[str, int]) -> None:
        """Let papers that have runs have their evidence, which says what is undecided."""
        self._write(seeds)
        begun = [paper for paper in self.claims
                 if any(count for name, count in seeds.items()
                        if name.partition(".")[0] == paper)]  # fmt: skip
        if begun:
            self.shown.say(f"evidence of {', '.join(begun)}, from what is on disk")
            self._snakemake(begun)

    def _next(self, found: Sequence[Stand], seeds: dict[str, int]) -> dict[str, int] | None:
        """Return the seeds of the next batch; None where nothing is left that fits."""
        batch = min(max(SHARE * 3600 * self.options.hours, SHORTEST), LONGEST)
        questions = [question for stand in found for question in stand.questions]
        self.costs.read(seeds)
        # Not only what it takes to begin a batch, on a machine that is slow to.
        room = max(self.pace.room(batch), LEAST * batches.OVERHEAD * self.pace.cores)
        asked = choose(questions, seeds, self.costs.missing, room,
                       self.pace.room(self.left), self.futile)  # fmt: skip
        return asked if asked != seeds else None

    def _batch(self, asked: dict[str, int], seeds: Mapping[str, int]) -> None:
        raised = [name for name, count in asked.items() if count != seeds[name]]
        runs = {run: cost for name in raised
                for run, cost in self.costs.missing(name, asked[name]).items()}  # fmt: skip
        papers = list(dict.fromkeys(name.partition(".")[0] for name in raised))
        seconds = sum(runs.values())
        self._write(asked)
        begun = self.clock()
        self.shown.batch(papers, len(runs) - len(papers), self.pace.wall(seconds), self.left)
        self._snakemake(papers)
        self.pace.learn(seconds, self.clock() - begun)
        self.costs.read(asked)
        if lacking := {run for name in raised for run in self.costs.missing(name, asked[name])}:
            raise UserError(
                f"{len(lacking)} runs of this batch are missing though Snakemake made it; "
                "`cyclery status` may say why."
            )

    def _snakemake(self, papers: Sequence[str]) -> None:
        log = self.plan.project.results / self.plan.tier / "logs" / "decide.log"
        batches.run(self.runner, papers, self.options.cores, self.options.snakemake, log,
                    lambda: self.shown.tick(self.left))  # fmt: skip
