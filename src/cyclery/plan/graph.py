"""Expand configuration into the static graph: parts, cells and shards.

Nothing here reads data, imports torch or touches the run store; arms come from ``resolve_arms``.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import cached_property

from cyclery.common.errors import UserError, choices, nearest
from cyclery.config.comparisons import Comparison
from cyclery.config.load import Project
from cyclery.config.models import Claim, Experiment
from cyclery.plan import allocation
from cyclery.plan.model import (
    ArmPlan,
    Cell,
    RangePlan,
    Shard,
    needed_seeds,
    range_tests,
    with_ancestors,
)
from cyclery.plan.resolve_arms import Arms

# The range test itself, as an arm that a claim can speak of.
RANGE_ARM = "range-test"


class Plan:
    """The graph of a project at its tier.

    Parts are papers, ``paper.experiment`` and ``paper.claim``. ``checked`` says that the same
    configuration was found sound before, so that the parts of networks need no check, nor torch.
    ``allocated`` are seeds of arms that hold whatever the allocation in the results and the
    configuration's ``seeds`` say of them.
    """

    def __init__(
        self, project: Project, checked: bool = False, allocated: Mapping[str, int] | None = None
    ) -> None:
        self.project = project
        self.tier = project.config.tier
        self._arms = Arms(project, checked)
        self._allocated = allocated
        self._shards: dict[str, tuple[Shard, ...]] = {}
        self._homes: dict[str, dict[tuple[str, int], Shard]] = {}

    def experiments(self, paper: str) -> dict[str, Experiment]:
        """Return the experiments of a paper that run at this tier."""
        return self._arms.experiments(paper)

    def arm_names(self, paper: str, experiment: str) -> list[str]:
        """Return the arms of an experiment that run at this tier, in declared order."""
        return self._arms.names(paper, experiment)

    def arm(self, paper: str, experiment: str, arm: str) -> ArmPlan:
        """Return an arm, with the trials of its tuning where it is tuned."""
        return self._arms.arm(paper, experiment, arm)

    # Parts: what can be a target.

    def parts(self) -> Iterator[str]:
        """Yield every part of the selected papers: papers, experiments and claims."""
        for paper in self.project.selected():
            yield paper
            yield from (f"{paper}.{name}" for name in self.experiments(paper))
            yield from (f"{paper}.{name}" for name in self.project.papers[paper].claims)

    def part_arms(self, part: str) -> list[tuple[str, str, str]]:
        """Return the arms that a part needs, without their parents."""
        paper, _, name = part.partition(".")
        if paper not in self.project.papers:
            papers = self.project.papers
            raise UserError(
                f"unknown paper {paper!r}.{nearest(paper, papers)} Papers: {choices(papers)}."
            )
        experiments = self.experiments(paper)
        if name and name not in experiments:
            claims = self.project.papers[paper].claims
            if name not in claims:
                known = [*experiments, *claims]
                raise UserError(
                    f"{paper} has no experiment or claim {name!r} at tier {self.tier!r}."
                    f"{nearest(name, known)} There are: {choices(known)}."
                )
            return self._claim_arms(paper, claims[name])
        chosen = [name] if name else list(experiments)
        return [(paper, exp, arm) for exp in chosen for arm in self.arm_names(paper, exp)]

    def _claim_arms(self, paper: str, claim: Claim) -> list[tuple[str, str, str]]:
        compared = claim.comparisons if not self.untested(claim) else []
        return list(dict.fromkeys(arm for c in compared for arm in self.comparison_arms(paper, c)))

    def comparison_arms(self, paper: str, comparison: Comparison) -> list[tuple[str, str, str]]:
        """Return the arms that a comparison needs, without their parents; of these, those here."""
        found: dict[tuple[str, str, str], None] = {}
        for exp, arms, _ in comparison.groups():
            running = self.arm_names(paper, exp) if exp in self.experiments(paper) else []
            for arm in arms:
                if arm == RANGE_ARM:
                    # A range test is run for an arm that takes its bounds.
                    ranged = (name for name in running if self.arm(paper, exp, name).range)
                    arm = next(ranged, arm)
                if arm in running:
                    found[paper, exp, arm] = None
        return list(found)

    def untested(self, claim: Claim) -> bool:
        """Say whether a claim is declared not to be tested at this tier."""
        return self.tier in claim.not_run or "all" in claim.not_run

    # Seeds: what every arm is asked for.

    @cached_property
    def allocation(self) -> Mapping[str, int]:
        """The seeds of arms that have a number of their own, by ``paper.experiment.arm``."""
        if self._allocated is not None:
            return self._allocated
        return allocation.read(allocation.place(self.project.results, self.tier))

    def allocated(self, paper: str) -> bool:
        """Say whether arms of a paper have numbers of seeds of their own."""
        return any(name.partition(".")[0] == paper for name in self.allocation)

    def seeds(self, arm: ArmPlan) -> range:
        """Return the seeds that an arm itself is asked for: the allocation's, or the tier's number.

        What the configuration asks for as `seeds` every arm has. Descendants may need more.
        """
        own = self.allocation.get(f"{arm.paper}.{arm.experiment}.{arm.name}")
        if own is None:
            return self.first(self.project.seeds)
        asked = self.project.config.seeds if self._allocated is None else None
        return self.first(max(own, asked or 0))

    def first(self, count: int) -> range:
        """Return the first so many seeds."""
        return self.project.seed_numbers(count)

    # Shards: what a job trains.

    def _blocks(self, seeds: set[int]) -> dict[int, tuple[int, ...]]:
        """Return seeds by block; more seeds append blocks and never change earlier ones."""
        blocks: dict[int, tuple[int, ...]] = {}
        for seed in sorted(seeds):
            index = seed // self.project.tier.block
            blocks[index] = (*blocks.get(index, ()), seed)
        return blocks

    def groups(self, part: str) -> list[str]:
        """Return the groups whose shards hold a part's arms."""
        if self.project.tier.shard_by == "paper":
            return [part] if self.part_arms(part) else []
        return list(dict.fromkeys(f"{paper}.{exp}" for paper, exp, _ in self.part_arms(part)))

    def shards(self, group: str) -> tuple[Shard, ...]:
        """Return the shards of a group and of its ancestors, parents first.

        Ancestors of another group are among them: the run store trains what groups share once.
        """
        if group not in self._shards:
            arms = [self.arm(*name) for name in self.part_arms(group)]
            # Two arms with the same settings are one run; each keeps its place in the records.
            unique = {arm.digest: arm for arm in with_ancestors(arms)}
            needed = list(self._needed(arms))
            self._shards[group] = tuple(self._chunks(group, list(unique.values()), needed))
        return self._shards[group]

    def _needed(self, arms: list[ArmPlan]) -> Iterator[dict[str, set[int]]]:
        """Yield, for each block of seeds, those of arms and ancestors that no earlier one needs."""
        before: dict[str, set[int]] = {}
        own = [set(self.seeds(arm)) for arm in arms]
        for block in self._blocks(set().union(*own)).values():
            found = needed_seeds((a, seeds & {*block}) for a, seeds in zip(arms, own, strict=True))
            yield {key: seeds - before.get(key, set()) for key, seeds in found.items()}
            for key, seeds in found.items():
                before.setdefault(key, set()).update(seeds)

    def _chunks(
        self, group: str, arms: list[ArmPlan], needed: list[dict[str, set[int]]]
    ) -> Iterator[Shard]:
        everything, size = self.project.config.checkpoints == "all", self.project.tier.cells_per_job
        for level in sorted({arm.level for arm in arms}):
            kept = [(a, everything or self.is_parent(a)) for a in arms if a.level == level]
            blocks = [
                [
                    Cell(arm, block, keep)
                    for arm, keep in kept
                    for block in self._blocks(seeds.get(arm.digest, set())).values()
                ]
                for seeds in needed
            ]
            if size is None:
                chunks = [[cell for cells in blocks for cell in cells]]
            else:
                # Never across blocks, so that more seeds only append shards.
                chunks = [
                    cells[i : i + size] for cells in blocks for i in range(0, len(cells), size)
                ]
            # No cell where no arm of the level has seeds.
            for index, cells in enumerate(filter(None, chunks)):
                yield Shard(group, f"L{level}-{index:04d}", tuple(cells))

    def shard(self, shard_id: str) -> Shard:
        """Return the shard ``group/name``."""
        group, slash, name = shard_id.rpartition("/")
        if not slash:
            raise UserError(f"no shard {shard_id!r}; write GROUP/SHARD, as in {shard_id}/L0-0000.")
        known = {shard.name: shard for shard in self.shards(group)}
        if name not in known:
            raise UserError(f"no shard {shard_id!r}; shards of {group!r}: {choices(known)}.")
        return known[name]

    def part_shards(self, part: str) -> list[Shard]:
        """Return the shards that hold a part's runs."""
        wanted = {self.arm(*name).digest for name in self.part_arms(part)}
        return [
            shard
            for group in self.groups(part)
            for shard in self.shards(group)
            if any(cell.arm.digest in wanted for cell in shard.cells)
        ]

    def parent_shards(self, shard: Shard) -> list[Shard]:
        """Return the shards that hold the parents and trials of a shard's cells."""
        group = shard.group
        if group not in self._homes:
            self._homes[group] = {
                (arm.digest, seed): each for each in self.shards(group) for arm, seed in each.runs
            }
        homes = (
            self._homes[group][source.arm.digest, each]
            for arm, seed in shard.runs
            for source in arm.sources
            for each in source.seeds(seed)
        )
        return list({home.id: home for home in homes}.values())

    def closure(self, part: str) -> list[Shard]:
        """Return the shards of a part and of all its ancestors, parents first."""
        found: dict[str, Shard] = {}

        def visit(shard: Shard) -> None:
            if shard.id not in found:
                for parent in self.parent_shards(shard):
                    visit(parent)
                found[shard.id] = shard

        for shard in self.part_shards(part):
            visit(shard)
        return list(found.values())

    def ranges(self, group: str) -> list[RangePlan]:
        """Return the range tests that a group's arms ask for."""
        return range_tests(arm for shard in self.shards(group) for arm in shard.arms)

    def kept(self) -> dict[str, tuple[Shard, ArmPlan, int]]:
        """Return the runs of the selected papers whose weights are kept, by name, parents first.

        A run that several papers share has the name that it has in the first one.
        """
        found: dict[str, tuple[Shard, ArmPlan, int]] = {}
        seen: set[tuple[str, int]] = set()
        groups = [group for paper in self.project.selected() for group in self.groups(paper)]
        for shard in (shard for group in groups for shard in self.shards(group)):
            for cell in (cell for cell in shard.cells if cell.keep):
                for seed in cell.seeds:
                    if (cell.arm.digest, seed) not in seen:
                        seen.add((cell.arm.digest, seed))
                        found[cell.arm.run_name(seed)] = (shard, cell.arm, seed)
        return found

    def holding(self, keys: Container[str]) -> Iterator[Shard]:
        """Yield the shards of all papers that list any of these runs, which keep their weights."""
        for group in dict.fromkeys(g for paper in self.project.papers for g in self.groups(paper)):
            for shard in self.shards(group):
                runs = (run for cell in shard.cells if cell.keep for run in cell.runs)
                if any(arm.key(seed) in keys for arm, seed in runs):
                    yield shard

    def planned(self, claim: Claim) -> int:
        """Return the seeds that are planned for a claim, before the run."""
        tier = self.project.tier
        declared = claim.seeds.get(self.tier, tier.planned or tier.seeds)
        return self.project.config.planned or declared

    def is_parent(self, arm: ArmPlan) -> bool:
        """Say whether an arm's weights are another arm's input."""
        return arm.digest in self._parent_digests

    @cached_property
    def _parent_digests(self) -> set[str]:
        return {
            parent.arm.digest
            for paper in self.project.papers
            for name, exp in self.experiments(paper).items()
            for arm in self.arm_names(paper, name)
            # Without these there is nobody to descend from.
            if exp.arms[arm].parents
            for descendant in with_ancestors([self.arm(paper, name, arm)])
            for parent in descendant.parents.values()
        }
