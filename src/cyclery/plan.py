"""Expand configuration into the static graph: arms, cells, shards and run keys.

Nothing here reads data, imports torch or touches the run store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from cyclery import schedules
from cyclery.cells import ArmPlan, Cell, RangePlan, Shard, digest
from cyclery.config.load import Project
from cyclery.config.models import BestOf, Claim, Comparison, Constant, Experiment, RangeTest
from cyclery.config.resolve import budget, merge, resolve
from cyclery.errors import UserError, choices, nearest


class Plan:
    """The graph of a project at its tier.

    A part is a paper, ``paper.experiment`` or ``paper.claim``.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.tier = project.config.tier
        self._arms: dict[tuple[str, str, str], tuple[ArmPlan, ...]] = {}
        self._shards: dict[str, tuple[Shard, ...]] = {}

    def experiments(self, paper: str) -> dict[str, Experiment]:
        """Return the experiments of a paper that run at this tier."""
        declared = self.project.papers[paper].experiments
        return {name: exp for name, exp in declared.items() if self.tier in exp.tiers}

    def arm_names(self, paper: str, experiment: str) -> list[str]:
        """Return the arms of an experiment that run at this tier, in declared order."""
        exp = self.project.papers[paper].experiments[experiment]
        chosen = exp.tiers[self.tier].arms
        return [name for name in exp.arms if chosen is None or name in chosen]

    def trials(self, paper: str, experiment: str, arm: str) -> tuple[ArmPlan, ...]:
        """Return an arm's tuning trials; one, with the values as declared, where none is tuned."""
        name = (paper, experiment, arm)
        if name not in self._arms:
            self._arms[name] = tuple(self._resolve(name, ()))
        return self._arms[name]

    def _resolve(
        self, name: tuple[str, str, str], chain: tuple[tuple[str, str, str], ...]
    ) -> Iterator[ArmPlan]:
        paper_name, experiment_name, arm_name = name
        where = "/".join(name)
        if name in chain:
            loop = " -> ".join("/".join(n) for n in [*chain[chain.index(name) :], name])
            raise UserError(f"{where}.parents: a run cannot descend from itself: {loop}.")
        paper = self.project.papers[paper_name]
        exp = paper.experiments[experiment_name]
        arm, tier = exp.arms[arm_name], exp.tiers[self.tier]
        merged = merge([self.project.tier.base, paper.base, exp.base, tier.base, arm])
        parents = {}
        for key, reference in sorted(arm.parents.items()):
            target = self._parent(name, key, reference)
            # A tuned parent would need its trial chosen first; students take it as declared.
            parents[key] = next(iter(self._resolve(target, (*chain, name))))
        if merged.get("init") is not None and merged["init"] not in parents:
            raise UserError(
                f"{where}.init: {merged['init']!r} is not a parent."
                f"{nearest(merged['init'], parents)} Parents: {choices(parents) or 'none'}."
            )
        for factors in self._factors(exp):
            settings = resolve(_scaled(merged, factors, where), where)
            test = tier.range or exp.range
            yield ArmPlan(
                paper=paper_name,
                experiment=experiment_name,
                name=arm_name,
                settings=settings,
                parents=parents,
                range=_range_test(settings, test, where),
                cost=budget(settings, where),
                factors=factors,
            )

    def _factors(self, exp: Experiment) -> list[dict[str, float]]:
        if not (self.project.tier.tuning and exp.tune):
            return [{}]
        trials: list[dict[str, float]] = [{}]
        for quantity, factors in exp.tune.items():
            trials = [{**trial, quantity: factor} for trial in trials for factor in factors]
        return trials

    def _parent(self, name: tuple[str, str, str], key: str, reference: str) -> tuple[str, str, str]:
        parts = reference.split("/")
        paper, experiment, arm = (*name[: 3 - len(parts)], *parts)[:3]
        where = f"{'/'.join(name)}.parents.{key}"
        if len(parts) > 3 or paper not in self.project.papers:
            raise UserError(
                f"{where}: {reference!r} is not `arm`, `experiment/arm` or `paper/experiment/arm`."
            )
        experiments = self.experiments(paper)
        if experiment not in experiments:
            raise UserError(
                f"{where}: no experiment {experiment!r} at tier {self.tier!r}."
                f"{nearest(experiment, experiments)} There are: {choices(experiments)}."
            )
        arms = self.arm_names(paper, experiment)
        if arm not in arms:
            raise UserError(
                f"{where}: no arm {arm!r} in {paper}/{experiment}.{nearest(arm, arms)} "
                f"Arms: {choices(arms)}."
            )
        return paper, experiment, arm

    # Parts: what a target asks for.

    def parts(self) -> Iterator[str]:
        """Yield every part of the selected papers that something runs or is said about."""
        for paper in self.project.selected():
            yield paper
            yield from (f"{paper}.{name}" for name in self.experiments(paper))
            yield from (f"{paper}.{name}" for name in self.project.papers[paper].claims)

    def part_arms(self, part: str) -> list[tuple[str, str, str]]:
        """Return the arms that a part needs, without their parents."""
        paper, _, name = part.partition(".")
        if paper not in self.project.papers:
            raise UserError(f"unknown paper {paper!r}.{nearest(paper, self.project.papers)}")
        experiments = self.experiments(paper)
        if name and name not in experiments:
            claims = self.project.papers[paper].claims
            if name not in claims:
                known = [*experiments, *claims]
                raise UserError(
                    f"{paper} has no experiment or claim {name!r} at tier {self.tier!r}."
                    f"{nearest(name, known)} There are: {choices(known)}."
                )
            pairs = [
                (comparison.experiment, arm)
                for comparison in claims[name].comparisons
                for arm in (comparison.arm, *comparison_arms(comparison))
            ]
            return list(
                dict.fromkeys(
                    (paper, exp, arm)
                    for exp, arm in pairs
                    if exp in experiments and arm in self.arm_names(paper, exp)
                )
            )
        chosen = [name] if name else list(experiments)
        return [(paper, exp, arm) for exp in chosen for arm in self.arm_names(paper, exp)]

    # Shards: what a job trains.

    def seed_blocks(self) -> list[tuple[int, ...]]:
        """Return the blocks of seeds; more seeds append blocks and never change earlier ones."""
        size, total = self.project.tier.block, self.project.seeds
        return [tuple(range(s, min(s + size, total))) for s in range(0, total, size)]

    def groups(self, part: str) -> list[str]:
        """Return the groups whose shards hold a part's arms."""
        if self.project.tier.shard_by == "paper":
            return [part] if self.part_arms(part) else []
        return list(dict.fromkeys(f"{paper}.{exp}" for paper, exp, _ in self.part_arms(part)))

    def shards(self, group: str) -> tuple[Shard, ...]:
        """Return the shards of a group, parents first."""
        if group not in self._shards:
            arms = [trial for name in self.part_arms(group) for trial in self.trials(*name)]
            if self.project.tier.shard_by == "paper":
                arms = list(_with_ancestors(arms))
            # Two arms with the same settings are one run; each keeps its place in the records.
            unique = {arm.digest: arm for arm in arms}
            self._shards[group] = tuple(self._chunks(group, list(unique.values())))
        return self._shards[group]

    def _chunks(self, group: str, arms: list[ArmPlan]) -> Iterator[Shard]:
        for level in sorted({arm.level for arm in arms}):
            cells = [
                Cell(arm, block)
                for block in self.seed_blocks()
                for arm in arms
                if arm.level == level
            ]
            size = self.project.tier.cells_per_job or len(cells)
            for index in range(0, len(cells), size):
                yield Shard(
                    group, f"L{level}-{index // size:04d}", tuple(cells[index : index + size])
                )

    def shard(self, shard_id: str) -> Shard:
        """Return the shard ``group/name``."""
        group, _, name = shard_id.rpartition("/")
        for shard in self.shards(group):
            if shard.name == name:
                return shard
        raise UserError(
            f"no shard {shard_id!r}; shards of {group!r}: "
            f"{choices(s.name for s in self.shards(group))}."
        )

    def part_shards(self, part: str) -> list[Shard]:
        """Return the shards that hold a part's runs."""
        wanted = {trial.digest for name in self.part_arms(part) for trial in self.trials(*name)}
        return [
            shard
            for group in self.groups(part)
            for shard in self.shards(group)
            if any(cell.arm.digest in wanted for cell in shard.cells)
        ]

    def parent_shards(self, shard: Shard) -> list[Shard]:
        """Return the shards that hold the parents of a shard's cells."""
        wanted = {
            (parent.digest, cell.seeds): parent
            for cell in shard.cells
            for parent in cell.arm.parents.values()
        }
        groups = dict.fromkeys(
            shard.group if self.project.tier.shard_by == "paper" else f"{p.paper}.{p.experiment}"
            for p in wanted.values()
        )
        return [
            candidate
            for group in groups
            for candidate in self.shards(group)
            if any((cell.arm.digest, cell.seeds) in wanted for cell in candidate.cells)
        ]

    def ranges(self, group: str) -> list[RangePlan]:
        """Return the range tests that a group's arms ask for."""
        arms = [cell.arm for shard in self.shards(group) for cell in shard.cells]
        return list({arm.range.key: arm.range for arm in arms if arm.range}.values())

    def is_parent(self, arm: ArmPlan) -> bool:
        """Say whether an arm's weights are another arm's input."""
        return arm.digest in self._parent_digests

    @cached_property
    def _parent_digests(self) -> set[str]:
        return {
            parent.digest
            for paper in self.project.papers
            for exp in self.experiments(paper)
            for arm in self.arm_names(paper, exp)
            for trial in self.trials(paper, exp, arm)
            for parent in trial.parents.values()
        }


def comparison_arms(comparison: Comparison) -> tuple[str, ...]:
    """Return the arms on the other side of a comparison."""
    against = comparison.against
    if isinstance(against, BestOf):
        return tuple(against.best_of)
    return () if isinstance(against, Constant) else (against,)


def planned_seeds(claim: Claim, tier: str, default: int) -> int:
    """Return the seeds that were planned for a claim before the run."""
    return claim.seeds.get(tier, default)


def _with_ancestors(arms: Iterable[ArmPlan]) -> Iterator[ArmPlan]:
    for arm in arms:
        yield from _with_ancestors(arm.parents.values())
        yield arm


def _scaled(merged: dict[str, Any], factors: dict[str, float], where: str) -> dict[str, Any]:
    """Return the settings with tuning factors multiplied onto the arm's own schedules."""
    scaled = dict(merged)
    for quantity, factor in factors.items():
        if merged.get(quantity) is None:
            raise UserError(f"{where}.tune: {quantity!r} is not set, so it cannot be tuned.")
        if factor != 1:
            scaled[quantity] = {"kind": "product", "of": [merged[quantity], factor]}
    return scaled


def _range_test(settings: dict[str, Any], test: RangeTest | None, where: str) -> RangePlan | None:
    """Return the range test of an arm, if its learning rate asks for one."""
    if not schedules.words(settings["schedules"]["lr"]):
        return None
    if test is None:
        raise UserError(
            f"{where}.lr: takes its bounds from a range test, but the experiment "
            "declares none; add the key `range`."
        )
    kind = {"linear": "linear", "exponential": "exp_sweep"}[test.sweep]
    sweep = {"kind": kind, "start": test.low, "end": test.high}
    own = {
        **settings,
        "schedules": {**settings["schedules"], "lr": schedules.normalise(sweep)},
        "epochs": test.epochs,
        "evaluations": test.points,
        "sweep": test.sweep,
    }
    cost = budget(own, f"{where}.range")
    if cost["updates"] < 10:
        raise UserError(
            f"{where}.range.epochs: {cost['updates']} updates are too few for a sweep; "
            "raise it until there are at least 10."
        )
    seeds = tuple(range(test.seeds))
    label = f"{settings['dataset']['name']}, {settings['model']['name']}, " + (
        f"{settings['optimiser']['name']}, {settings['method']['name']}"
    )
    return RangePlan(settings=own, label=label, key=digest([own, seeds]), seeds=seeds)
