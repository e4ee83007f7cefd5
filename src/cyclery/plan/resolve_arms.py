"""Resolve every arm of a project: its settings, parents, range test and cost.

Nothing here reads data, imports torch or touches the run store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cyclery import methods, schedules
from cyclery.common.errors import UserError, choices, nearest
from cyclery.config.load import Project
from cyclery.config.models import Experiment, ParentRef, RangeTest
from cyclery.config.parts import takes_head
from cyclery.config.resolve import DEFAULTS, budget, check_ignored, merge, resolve
from cyclery.config.settings import Settings
from cyclery.data.sizes import check_blocks
from cyclery.plan import studies
from cyclery.plan.model import ArmPlan, Parent, RangePlan, Trial, digest
from cyclery.plan.own_figures import own_figures
from cyclery.plan.parent_checks import check_parents
from cyclery.plan.part_checks import check_parts
from cyclery.records import trial_selection
from cyclery.records.record import ArmSettings


class ArmError(UserError):
    """What is wrong with the settings of an arm: ``text``, which other arms may share."""

    def __init__(self, text: str, arm: str) -> None:
        super().__init__(f"{text} (arm {arm})")
        self.text, self.arm = text, arm


NO_HEAD = "the method of this arm trains no head"
# Paper, experiment and arm.
Name = tuple[str, str, str]
# A file of configuration and the key in it, before a layer of settings.
Place = tuple[Path, str]


class Arms:
    """The arms of a project at its tier, each resolved once, and checked unless they were."""

    def __init__(self, project: Project, checked: bool = False) -> None:
        self.project, self.checked = project, checked
        self.tier = project.config.tier
        self._arms: dict[Name, ArmPlan] = {}
        self._open: list[Name] = []

    def experiments(self, paper: str) -> dict[str, Experiment]:
        """Return the experiments of a paper that run at this tier."""
        declared = self.project.papers[paper].experiments
        return {name: exp for name, exp in declared.items() if self.tier in exp.tiers}

    def names(self, paper: str, experiment: str) -> list[str]:
        """Return the arms of an experiment that run at this tier, in declared order."""
        exp = self.project.papers[paper].experiments[experiment]
        chosen = exp.tiers[self.tier].arms
        return [name for name in exp.arms if chosen is None or name in chosen]

    def arm(self, paper: str, experiment: str, arm: str) -> ArmPlan:
        """Return an arm, with the trials of its tuning, or its search, where it has one.

        Raises an ArmError that names the file and key of the layer which is wrong.
        """
        name = (paper, experiment, arm)
        if name in self._open:
            raise self._cycle(name)
        if name not in self._arms:
            self._open.append(name)
            try:
                self._arms[name] = self._resolve(name)
            finally:
                self._open.pop()
        return self._arms[name]

    def _cycle(self, name: Name) -> ArmError:
        loop = self._open[self._open.index(name) :]
        # From wherever the circle was entered, it is the same mistake.
        first = loop.index(min(loop))
        loop = [*loop[first:], *loop[:first], loop[first]]
        paper, experiment, arm = loop[0]
        where = f"{self.project.paper_file(paper)}: experiments.{experiment}.arms.{arm}.parents"
        shown = " -> ".join("/".join(each) for each in loop)
        return ArmError(f"{where}: a run cannot descend from itself: {shown}.", "/".join(loop[0]))

    def _layers(self, name: Name) -> list[tuple[Place, Settings]]:
        """Return what gives an arm its settings, with its file and key, later layers winning."""
        paper_name, experiment, arm = name
        paper = self.project.papers[paper_name]
        exp, file = paper.experiments[experiment], self.project.paper_file(paper_name)
        at = f"experiments.{experiment}"
        return [
            ((self.project.tier_file, "base."), self.project.tier.base),
            ((file, "base."), paper.base),
            ((file, f"{at}.base."), exp.base),
            ((file, f"{at}.tiers.{self.tier}.base."), exp.tiers[self.tier].base),
            ((file, f"{at}.arms.{arm}."), exp.arms[arm]),
        ]

    def _resolve(self, name: Name) -> ArmPlan:
        paper_name, experiment_name, arm_name = name
        exp = self.project.papers[paper_name].experiments[experiment_name]
        datasets = self.project.datasets
        try:
            merged = merge(layer for _, layer in self._layers(name))
            arm, tier = exp.arms[arm_name], exp.tiers[self.tier]
            parents = {}
            for key, reference in sorted(arm.parents.items()):
                parent = self.arm(*self._parent(name, key, reference.arm))
                parents[key] = _parent(_declared(parent), reference)
            begins = merged.get("init")
            if begins is not None and (start := begins["from"]) not in parents:
                raise UserError(
                    f"init: {start!r} is not a parent.{nearest(start, parents)} "
                    f"Parents: {choices(parents) or 'none'}."
                )

            def resolved(given: dict[str, Any]) -> ArmSettings:
                settings = resolve(given, datasets)
                dataset = datasets[settings["dataset"]["name"]]
                check_blocks(dataset, settings["split"], self.project.seeds)
                check_ignored(arm.method, settings)
                # Their names say their units.
                own_figures(settings)
                if not self.checked:
                    check_parts(settings, datasets)
                    check_parents(settings, parents, datasets, head=takes_head(begins))
                return settings

            def plan(factors: dict[str, float]) -> ArmPlan:
                settings = resolved(_scaled(merged, factors))
                if factors:
                    if settings["split"].get("retrain"):
                        raise UserError(
                            "split.retrain: must be false where `tune` chooses on the validation "
                            "samples; use `search`."
                        )
                    if settings["split"]["choose"] == "blocks":
                        raise UserError(
                            "split.choose: must not be blocks where `tune` needs a split that no "
                            "run has (found 'blocks'); use `search`."
                        )
                    # Trials are chosen by validation accuracy, and nothing reads their features.
                    settings.pop("probes", None)
                if factors and not settings["split"]["validation"]:
                    raise UserError("split.validation: must be above 0 where arms are tuned.")
                if factors and not _classifies(settings):
                    raise UserError(f"tune: chooses by validation accuracy, but {NO_HEAD}.")
                return ArmPlan(
                    paper=paper_name,
                    experiment=experiment_name,
                    name=arm_name,
                    settings=settings,
                    parents=parents,
                    range=_range_test(settings, tier.range or exp.range, self.project),
                    cost=budget(settings, datasets),
                    factors=factors,
                )

            at = trial_selection.seeds(self.project.tier.tuning_seeds)
            trials = tuple(Trial(plan(factors), at) for factors in self._factors(exp))
            own = replace(plan({}), trials=trials)
            if exp.search is None or tier.search is None or not arm.searched:
                return own
            declared = tier.search.over(exp.search)
            found = studies.search(own, arm, declared, merged, resolved, datasets)
            return replace(own, search=found)
        except ArmError:
            raise
        except UserError as error:
            raise ArmError(self._located(name, str(error)), "/".join(name)) from None

    def _located(self, name: Name, message: str) -> str:
        """Return a message that begins with a key, behind the file and place that set the key."""
        key, part = re.match(r"(\w+)(?:\.(\w+))?", message).groups()  # type: ignore[union-attr]
        layers = self._layers(name)
        file, place = layers[-1][0]
        if message.startswith(f"{key}: missing"):
            file, place = layers[0][0]
        elif key in ("range", "tune", "search"):
            own = self.project.papers[name[0]].experiments[name[1]].tiers[self.tier]
            changed = own.search if key == "search" else own.range if key == "range" else None
            at_tier = changed and (part is None or getattr(changed, part, None) is not None)
            place = f"experiments.{name[1]}." + (f"tiers.{self.tier}." if at_tier else "")
        for where, layer in layers:
            value = getattr(layer, key, None) if key in layer.model_fields_set else None
            if value is not None and (key != "split" or part in value):
                file, place = where
        advice = ""
        others = [at for at, layer in layers[1:] if layer.dataset is not None]
        if key == "split" and others and (file, place) == layers[0][0]:
            # The tier's split is for the tier's dataset: others must not be led to change it.
            advice = (
                f" The tier's split is for its own dataset: set `split` in {others[-1][0]}, "
                f"{others[-1][1]}split, beside `dataset`."
            )
        return f"{file}: {place}{message}{advice}"

    def _factors(self, exp: Experiment) -> list[dict[str, float]]:
        """Return the factors of every trial: the same for all arms of an experiment."""
        if not (self.project.tier.tuning and exp.tune):
            return []
        trials: list[dict[str, float]] = [{}]
        for quantity, factors in exp.tune.items():
            trials = [{**trial, quantity: factor} for trial in trials for factor in factors]
        # A single one is the arm as declared.
        return trials if len(trials) > 1 else []

    def _parent(self, name: Name, key: str, reference: str) -> Name:
        parts = reference.split("/")
        paper, experiment, arm = (*name[: 3 - len(parts)], *parts)[:3]
        where = f"parents.{key}"
        if len(parts) > 3:
            raise UserError(
                f"{where}: must be `arm`, `experiment/arm` or `paper/experiment/arm` "
                f"(found {reference!r})."
            )
        at, papers = f" at tier {self.tier!r}", self.project.papers
        if paper not in papers:
            raise UserError(_unknown(f"{where}: unknown paper {paper!r}", paper, papers))
        known = self.experiments(paper)
        if experiment not in known:
            text = f"{where}: unknown experiment {experiment!r} in {paper!r}{at}"
            raise UserError(_unknown(text, experiment, known))
        arms = self.names(paper, experiment)
        if arm not in arms:
            text = f"{where}: unknown arm {arm!r} in '{paper}/{experiment}'{at}"
            raise UserError(_unknown(text, arm, arms))
        return paper, experiment, arm


def _classifies(settings: ArmSettings) -> bool:
    """Return whether an arm's method trains a head, so that its accuracy says something."""
    method = methods.load(settings["method"]["name"])
    return method.classifies(method.chosen(settings["method"]["settings"]))


def _declared(arm: ArmPlan) -> ArmPlan:
    """Return an arm with its values as declared, which students take whatever its tuning says."""
    trials = (trial.arm for trial in arm.trials)
    return next((trial for trial in trials if set(trial.factors.values()) <= {1}), arm)


def _parent(arm: ArmPlan, reference: ParentRef) -> Parent:
    """Return a parent as an arm refers to it."""
    if reference.seeds == "other":
        return Parent(arm.redrawn())
    if reference.seeds == "same":
        return Parent(arm)
    [(kind, count)] = reference.seeds.model_dump(exclude_none=True).items()
    return Parent(arm, kind, count)


def _unknown(text: str, name: str, known: Iterable[str]) -> str:
    return f"{text}.{nearest(name, known)} There are: {choices(known) or 'none'}."


def _scaled(merged: dict[str, Any], factors: dict[str, float]) -> dict[str, Any]:
    """Return the settings with tuning factors multiplied onto the arm's own schedules."""
    scaled = dict(merged)
    for quantity, factor in factors.items():
        value = merged.get(quantity)
        value = DEFAULTS.get(quantity) if value is None else value
        if value is None:
            raise UserError(f"tune.{quantity}: is not set in this arm, so it cannot be tuned.")
        if factor != 1:
            scaled[quantity] = {"kind": "product", "of": [value, factor]}
    return scaled


def _range_test(
    settings: ArmSettings, test: RangeTest | None, project: Project
) -> RangePlan | None:
    """Return the range test of an arm, if its learning rate asks for one."""
    datasets = project.datasets
    if not schedules.words(settings["schedules"]["lr"]):
        return None
    if methods.parents_of(settings["method"]):
        raise UserError("lr: a method that learns from parents has no range test; give numbers.")
    if not _classifies(settings):
        raise UserError(f"lr: a range test reads held-out accuracy, but {NO_HEAD}; give numbers.")
    if test is None:
        raise UserError(
            "lr: takes its bounds from a range test, but the experiment declares none; "
            "add the key `range` to it."
        )
    if not settings["split"]["validation"]:
        raise UserError(
            "split.validation: must be above 0 for a range test, which reads held-out accuracy."
        )
    kind = {"linear": "linear", "exponential": "exp_sweep"}[test.sweep]
    sweep = {"kind": kind, "start": test.low, "end": test.high}
    if settings["init"] and "frozen" in settings:
        raise UserError(
            "lr: a range test trains a new network, not one with frozen parts of a parent; give "
            "numbers."
        )
    own: ArmSettings = {
        # A sweep measures no probe, so it is the same with one and without.
        **cast(
            ArmSettings,
            {key: value for key, value in studies.held_out(settings).items() if key != "probes"},
        ),
        "schedules": {**settings["schedules"], "lr": schedules.normalise(sweep)},
        "epochs": test.epochs,
        "evaluations": test.points,
        "init": None,
        "init_share": None,
        "sweep": test.sweep,
    }
    own.pop("init_parts", None)
    try:
        cost = budget(own, datasets)
    except UserError as error:
        raise UserError(f"range.epochs: {test.epochs} do not suit the arm: {error}") from None
    if (updates := cost["updates"]) < 10:
        raise UserError(
            f"range.epochs: {updates} updates are too few for a sweep; raise it until there are "
            "at least 10."
        )
    check_blocks(datasets[own["dataset"]["name"]], own["split"], test.seeds)
    seeds = tuple(project.seed_numbers(test.seeds))
    label = f"{settings['dataset']['name']}, {settings['model']['name']}, " + (
        f"{settings['optimiser']['name']}, {settings['method']['name']}"
    )
    return RangePlan(settings=own, label=label, key=digest([own, seeds]), seeds=seeds,
                     cost=cost)  # fmt: skip
