"""Validate the whole project: all names are defined, all comparisons are fair."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from cyclery import methods, probes
from cyclery.common.errors import UserError, choices
from cyclery.config.comparisons import BestOf, Comparison, Group, comparison_arms
from cyclery.config.load import Project, tier_names
from cyclery.config.margins import check_scales
from cyclery.config.models import Claim, Experiment, Paper
from cyclery.methods import REFERENCE, TEACHER
from cyclery.plan import fresh_seeds, plot_checks, table_checks
from cyclery.plan.budget_checks import check_equal
from cyclery.plan.checked_names import unknown, unusable_metric
from cyclery.plan.graph import RANGE_ARM, Plan
from cyclery.plan.grid_checks import check_grids
from cyclery.plan.own_figures import own_figures, possible_figures
from cyclery.plan.resolve_arms import ArmError
from cyclery.records import metrics
from cyclery.records.readers import read_printed
from cyclery.records.record import ArmSettings


def check(project: Project, allocated: Mapping[str, int] | None = None) -> Plan:
    """Check all papers at the configured tier and return the plan; a UserError lists what fails.

    ``allocated`` are seeds of arms, as ``Plan`` takes them.
    """
    project.selected()
    plan = Plan(project, allocated=allocated)
    tiers = tier_names(project.root)
    figures = {name: possible_figures(each, project.tier) for name, each in project.papers.items()}
    problems = [
        f"{project.paper_file(name)}: {text}"
        for name, paper in project.papers.items()
        for text in _paper(paper, tiers, figures[name])
    ]
    problems += _printed(project)
    tables = [] if problems else table_checks.resolved(project)
    problems = problems or list(table_checks.names(project, tables, tiers, figures))
    problems = problems or _arms(plan)
    problems = problems or [
        f"{project.paper_file(name)}: {text}"
        for name in project.papers
        for text in _comparisons(plan, name)
    ]
    problems = problems or list(table_checks.same_data(plan, tables))
    problems = problems or list(fresh_seeds.problems(plan))
    if problems:
        raise UserError("\n".join(problems))
    return plan


def _printed(project: Project) -> Iterator[str]:
    for name in project.papers:
        try:
            read_printed(project.printed_file(name))
        except UserError as error:
            yield str(error)


def _arms(plan: Plan) -> list[str]:
    """Resolve every arm; a mistake that several share is reported once."""
    found: dict[str, dict[str, None]] = {}
    for paper in plan.project.papers:
        for experiment in plan.experiments(paper):
            for arm in plan.arm_names(paper, experiment):
                try:
                    plan.arm(paper, experiment, arm)
                except ArmError as error:
                    found.setdefault(error.text, {})[error.arm] = None
    return [f"{text} ({_shared(list(arms))})" for text, arms in found.items()]


def _shared(arms: list[str]) -> str:
    more = len(arms) - 1
    return f"arm {arms[0]}" + (f" and {more} more arm{'s' if more > 1 else ''}" if more else "")


def _paper(paper: Paper, tiers: list[str], own: Collection[str]) -> Iterator[str]:
    # Both are targets and file names, and some file systems do not tell A from a.
    seen: dict[str, str] = {}
    for kind, known in (("experiments", paper.experiments), ("claims", paper.claims)):
        for name in known:
            other = seen.setdefault(name.casefold(), f"{kind}.{name}")
            if other != f"{kind}.{name}":
                yield f"{kind}.{name}: has the name of {other}; rename one."
    for name, exp in paper.experiments.items():
        yield from _experiment(exp, f"experiments.{name}", tiers)
    for tier in paper.not_run:
        if tier not in tiers:
            yield unknown("not_run", tier, tiers, "tier")
    for name, claim in paper.claims.items():
        yield from _claim(paper, claim, f"claims.{name}", tiers, own)
    yield from plot_checks.names(paper, own)


def _experiment(exp: Experiment, where: str, tiers: list[str]) -> Iterator[str]:
    if RANGE_ARM in exp.arms:
        yield f"{where}.arms.{RANGE_ARM}: this name means the range test itself; rename the arm."
    for tier, chosen in exp.tiers.items():
        at = f"{where}.tiers.{tier}"
        if tier not in tiers:
            yield unknown(at, tier, tiers, "tier")
        for key, names in (("arms", chosen.arms or []), ("not_run", list(chosen.not_run))):
            for arm in dict.fromkeys(names):
                if arm not in exp.arms:
                    yield unknown(f"{at}.{key}", arm, exp.arms, "arm")
                elif names.count(arm) > 1:
                    yield f"{at}.{key}: the arm {arm!r} stands twice; delete one."
        for arm in chosen.not_run:
            if arm in exp.arms and (chosen.arms is None or arm in chosen.arms):
                yield f"{at}.not_run: the arm {arm!r} runs here; leave it out of `arms` or of this."


def _claim(
    paper: Paper, claim: Claim, where: str, tiers: list[str], own: Collection[str]
) -> Iterator[str]:
    for tier in claim.not_run:
        if tier not in (*tiers, "all", *paper.not_run):
            yield unknown(f"{where}.not_run", tier, [*tiers, "all"], "tier")
    for tier in claim.seeds:
        if tier not in tiers:
            yield unknown(f"{where}.seeds", tier, tiers, "tier")
    if not claim.comparisons and not claim.not_run:
        yield f"{where}: needs `comparisons`, or `not_run` with the reason."
    for index, comparison in enumerate(claim.comparisons):
        yield from _comparison(paper, comparison, f"{where}.comparisons[{index}]", own)


def _comparison(
    paper: Paper, comparison: Comparison, where: str, own: Collection[str]
) -> Iterator[str]:
    if comparison.listed():
        found = list(_listed(paper, comparison, where, own))
        yield from found or check_scales(comparison, where)
        return
    first, *others = comparison.differences()
    found = list(_difference(paper, first, where, own))
    yield from found
    sound = not found
    for second in others:
        # Mistakes in what the second inherits are reported with the first.
        for problem in _difference(paper, second, f"{where}.interaction", own):
            sound = False
            if problem.replace(f"{where}.interaction", where, 1) not in found:
                yield problem
        if second == first:
            yield f"{where}.interaction: is the first difference again; change one of them."
    if sound:
        yield from check_scales(comparison, where)


def _listed(
    paper: Paper, comparison: Comparison, where: str, figures: Collection[str]
) -> Iterator[str]:
    """Yield what is wrong with a comparison that lists its arms."""
    key, within = comparison.kind.replace(" ", "_"), comparison.experiment
    if within not in paper.experiments:
        yield unknown(f"{where}.experiment", within, paper.experiments, "experiment")
        return
    arms = list(paper.experiments[within].arms)
    for name in dict.fromkeys(comparison.listed()):
        if name not in arms:
            yield unknown(f"{where}.{key}", name, arms, "arm", within)
        elif comparison.listed().count(name) > 1:
            yield f"{where}.{key}: the arm {name!r} stands twice; delete one."
    yield from unusable_metric(comparison.metric, False, f"{where}.metric", own=figures)
    other = comparison.rank_correlation and comparison.rank_correlation.metric
    if other:
        yield from unusable_metric(other, False, f"{where}.{key}.metric", own=figures)
        if other == comparison.metric:
            yield f"{where}.{key}.metric: {other!r} would be correlated with itself."


def _difference(
    paper: Paper, comparison: Comparison, where: str, figures: Collection[str]
) -> Iterator[str]:
    if comparison.experiment not in paper.experiments:
        known = paper.experiments
        yield unknown(f"{where}.experiment", comparison.experiment, known, "experiment")
        return
    exp = paper.experiments[comparison.experiment]
    has_range = exp.range or any(tier.range for tier in exp.tiers.values())
    arms = [*exp.arms, RANGE_ARM] if has_range else list(exp.arms)
    others = comparison_arms(comparison)
    for key, names in (("arm", (str(comparison.arm),)), ("against", others)):
        for name in dict.fromkeys(names):
            if name not in arms:
                yield unknown(f"{where}.{key}", name, arms, "arm", comparison.experiment)
    if comparison.arm in others and comparison.against_metric in (None, comparison.metric):
        yield f"{where}.against: {comparison.arm!r} would be compared with itself."
    own = "metric" if comparison.against_metric is None else "against_metric"
    sides = {(comparison.metric, comparison.arm == RANGE_ARM): "metric"}
    for name in others:
        metric = comparison.against_metric or comparison.metric
        sides.setdefault((metric, name == RANGE_ARM), own)
    for (metric, of_range), key in sides.items():
        yield from unusable_metric(metric, of_range, f"{where}.{key}", own=figures)
    if isinstance(comparison.against, BestOf):
        by = comparison.against.by
        if by.removeprefix("raw_").startswith("test_"):
            yield (
                f"{where}.against.by: {by!r} would choose on the test set; use a validation "
                "metric such as val_accuracy."
            )
        else:
            yield from unusable_metric(by, False, f"{where}.against.by", "val_", figures)


def _comparisons(plan: Plan, paper: str) -> Iterator[str]:
    """Yield the comparisons of this tier that are unfair or cannot be made."""
    experiments = plan.experiments(paper)
    for name, claim in plan.project.papers[paper].claims.items():
        for index, comparison in enumerate(claim.comparisons):
            if plan.untested(claim):
                continue
            for group in comparison.groups():
                if group.experiment in experiments:
                    where = f"claims.{name}.comparisons[{index}]"
                    arms = plan.arm_names(paper, group.experiment)
                    sides = {arm: plan.arm(paper, group.experiment, arm)
                             for arm in group.arms if arm in arms}  # fmt: skip
                    yield from check_equal(comparison, sides, plan.project.seed_numbers(), where)
                    yield from _fair(plan, paper, group, where)
                    if comparison.flatness:
                        yield from check_grids(comparison.flatness, sides, where)


def _fair(plan: Plan, paper: str, group: Group, where: str) -> Iterator[str]:
    exp = group.experiment
    running = {arm: plan.arm(paper, exp, arm) for arm in plan.arm_names(paper, exp)}
    sides = [arm for arm in group.arms if arm in running]
    known = {arm: running[arm].settings["split"].get("open_set") for arm in sides}
    classes = {arm: each["classes"] if each else "all" for arm, each in known.items()}
    if len({str(each) for each in classes.values()}) > 1:
        shown = ", ".join(f"{arm} {each}" for arm, each in classes.items())
        yield (
            f"{where}: the arms are tested on samples of different classes ({shown}); give them "
            "the same split.open_set.classes."
        )
    for arm in sides:
        settings = running[arm].settings
        for metric in group.metrics:
            base = metric.removeprefix("log:")
            if base.startswith("raw_") and not _averaged(settings):
                yield (
                    f"{where}: {metric!r} needs averaged weights (`ema_decay`) that are evaluated; "
                    f"{arm!r} has none."
                )
                return
            if lacking := _lacks(settings, base):
                yield f"{where}: {metric!r} is no figure of {arm!r}: {lacking}"
                return
            found = metrics.find(base)
            taught = TEACHER in methods.parents_of(settings["method"])
            compared = taught or REFERENCE in running[arm].parents
            if found and found.needs_teacher and not compared:
                yield (
                    f"{where}: {metric!r} needs a parent `reference`, or a `teacher` that the "
                    f"method learns from; {arm!r} has none."
                )
                return
            validates = base.removeprefix("raw_").startswith("val_")
            split = settings["split"]
            if validates and (split.get("retrain") or not split["validation"]):
                yield f"{where}: {metric!r} needs a validation split; {arm!r} has none."
                return
    asked = RANGE_ARM in group.arms
    everything = len(running) == len(plan.project.papers[paper].experiments[exp].arms)
    if asked and everything and not any(arm.range for arm in running.values()):
        yield f"{where}: no arm of {exp!r} asks for its range test, as `lr: range` does."


def _averaged(settings: ArmSettings) -> bool:
    """Return whether an average is evaluated, so that the trained network's figures are `raw_`."""
    method = methods.load(settings["method"]["name"])
    chosen = method.chosen(settings["method"]["settings"])
    return "ema_decay" in settings["schedules"] and method.averages(chosen)


def _lacks(settings: ArmSettings, metric: str) -> str | None:
    """Return why the runs of an arm do not have a metric; None where they do."""
    name, at, _ = metric.partition("@")
    figure, rule = metrics.selection(name)
    if (at or rule) and figure in probes.recorded(settings.get("probes", {})):
        return f"a probe is measured at the end of a run alone; take {figure}."
    own = own_figures(settings)
    if figure in own:
        return None
    if figure not in metrics.names("names"):
        there = f"they measure {choices(own)}" if own else "they measure nothing of their own"
        return f"neither its method nor its `probes` measure it ({there})."
    method = methods.load(settings["method"]["name"])
    # Of what every run has at its end, all but its costs is an answer of its head.
    of_head = figure in metrics.names("finals") and figure not in metrics.OWN
    if of_head and not method.classifies(method.chosen(settings["method"]["settings"])):
        return f"its method, {method.name}, trains no head; measure its features by `probes`."
    return None
