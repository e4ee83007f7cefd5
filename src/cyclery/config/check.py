"""Checks that need the whole configuration: every name is defined, every comparison is fair."""

from __future__ import annotations

from pathlib import Path

from cyclery.config.load import Project
from cyclery.config.models import BestOf, Comparison, Paper
from cyclery.errors import UserError, choices, nearest
from cyclery.plan import Plan, comparison_arms

METRICS = (
    "test_accuracy",
    "test_balanced_accuracy",
    "test_nll",
    "test_ece",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_nll",
    "val_ece",
    "minority_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
    "seconds",
    "log10_base",
    "log10_max",
    "range_deviation",
)
# The range test itself, as an arm that a claim can speak of.
RANGE_ARM = "range-test"


def check(project: Project) -> Plan:
    """Check all papers at the configured tier and return the plan; a UserError lists what fails."""
    project.selected()
    plan = Plan(project)
    problems: list[str] = []
    for name, paper in project.papers.items():
        path = Path(project.root) / "config" / "papers" / f"{name}.yaml"
        problems += [f"{path}: {text}" for text in _paper(project, paper)]
    if problems:
        raise UserError("\n".join(problems))
    for name in project.papers:
        path = Path(project.root) / "config" / "papers" / f"{name}.yaml"
        try:
            for experiment in plan.experiments(name):
                for arm in plan.arm_names(name, experiment):
                    plan.trials(name, experiment, arm)
            problems += [f"{path}: {text}" for text in _budgets(plan, name)]
        except UserError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return plan


def _paper(project: Project, paper: Paper) -> list[str]:
    tiers = sorted(path.stem for path in (project.root / "config" / "tiers").glob("*.yaml"))
    problems = []
    for name in paper.experiments.keys() & paper.claims.keys():
        problems.append(f"claims.{name}: an experiment has the same name; rename one")
    for name, exp in paper.experiments.items():
        for tier, chosen in exp.tiers.items():
            where = f"experiments.{name}.tiers.{tier}"
            if tier not in tiers:
                problems.append(
                    f"{where}: unknown tier.{nearest(tier, tiers)} Tiers: {choices(tiers)}"
                )
            for arm in [*(chosen.arms or []), *chosen.not_run]:
                if arm not in exp.arms:
                    problems.append(
                        f"{where}: unknown arm {arm!r}.{nearest(arm, exp.arms)} "
                        f"Arms: {choices(exp.arms)}"
                    )
            if chosen.arms is not None and len(set(chosen.arms)) < len(chosen.arms):
                problems.append(f"{where}.arms: an arm stands twice")
    for name, claim in paper.claims.items():
        for tier in claim.not_run.keys() | claim.seeds.keys():
            if tier not in (*tiers, "all"):
                problems.append(
                    f"claims.{name}: unknown tier {tier!r}.{nearest(tier, tiers)} "
                    f"Tiers: {choices(tiers)}, all"
                )
        if not claim.comparisons and not claim.not_run:
            problems.append(f"claims.{name}: needs `comparisons`, or `not_run` with the reason")
        for index, comparison in enumerate(claim.comparisons):
            where = f"claims.{name}.comparisons.{index}"
            problems += [f"{where}.{text}" for text in _comparison(paper, comparison)]
    return problems


def _comparison(paper: Paper, comparison: Comparison) -> list[str]:
    if comparison.experiment not in paper.experiments:
        known = paper.experiments
        return [
            f"experiment: unknown experiment {comparison.experiment!r}."
            f"{nearest(comparison.experiment, known)} Experiments: {choices(known)}"
        ]
    exp = paper.experiments[comparison.experiment]
    arms = [*exp.arms, RANGE_ARM] if exp.range else list(exp.arms)
    problems = [
        f"arm {arm!r} does not exist in {comparison.experiment}."
        f"{nearest(arm, arms)} Arms: {choices(arms)}"
        for arm in (comparison.arm, *comparison_arms(comparison))
        if arm not in arms
    ]
    metrics = [comparison.metric, comparison.against_metric or comparison.metric]
    if isinstance(comparison.against, BestOf):
        metrics.append(comparison.against.by)
        if not comparison.against.by.startswith("val_"):
            problems.append(
                f"against.by: {comparison.against.by!r} would choose on the test set; use a "
                "validation metric such as val_accuracy"
            )
    for metric in dict.fromkeys(metrics):
        base, at, fraction = metric.removeprefix("log:").partition("@")
        if base not in METRICS:
            problems.append(
                f"metric: unknown metric {metric!r}.{nearest(base, METRICS)} "
                f"Metrics: {choices(METRICS)}; or one of them as a curve, as in test_accuracy@0.5"
            )
        elif at and not _is_fraction(fraction):
            problems.append(f"metric: {metric!r} needs a fraction of the run from 0 to 1 after @")
    return problems


def _is_fraction(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _budgets(plan: Plan, paper: str) -> list[str]:
    """A comparison sees equal numbers of samples on both sides, or says why it does not."""
    problems = []
    experiments = plan.experiments(paper)
    for name, claim in plan.project.papers[paper].claims.items():
        for index, comparison in enumerate(claim.comparisons):
            if comparison.experiment not in experiments or comparison.unequal_budget:
                continue
            running = plan.arm_names(paper, comparison.experiment)
            sides = [comparison.arm, *comparison_arms(comparison)]
            images = {
                arm: plan.trials(paper, comparison.experiment, arm)[0].cost["images"]
                for arm in sides
                if arm in running
            }
            if len(set(images.values())) > 1:
                shown = ", ".join(f"{arm} {count}" for arm, count in images.items())
                problems.append(
                    f"claims.{name}.comparisons.{index}: the arms see different numbers of "
                    f"samples ({shown}); make them equal or give the reason as `unequal_budget`"
                )
    return problems
