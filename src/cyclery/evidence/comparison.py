"""One statistical test, from its paired data to a row of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import ceil, lcm
from statistics import fmean

from cyclery.evidence.contracts import Comparison, ExperimentRuns, Labels, Records
from cyclery.evidence.stats import alpha_spending, contrasts, paired_tests, sensitivity
from cyclery.evidence.stats.contrasts import Samples
from cyclery.evidence.stats.paired_tests import Source
from cyclery.evidence.stats.pairing import Pairs, finished, first, runs_of
from cyclery.evidence.stats.random_effects import Pool, pool
from cyclery.evidence.stats.rank_and_order_tests import joint_power
from cyclery.records import metrics as metrics_derived
from cyclery.records.claims import Exploratory, Interval, Look, PoolMember, Row, Test, Verdict


@dataclass
class Case:
    """One statistical test: the data of a comparison, or of a pooled claim, and its evidence row.

    ``pairs`` and ``stages`` have an entry for every look (interim analysis) that the data have
    reached, or one of all data where no number of seeds is planned. Before the first look
    ``pairs`` holds the data so far, ``waiting`` is true and there are no stages. ``estimator``
    takes samples that are not empty; ``steps`` is the number of means that must all hold.
    """

    row: Row
    pairs: list[Pairs]
    stages: list[Samples]
    samples: int
    estimator: Callable[[Samples], Source | None] = contrasts.mean
    steps: int = 1
    waiting: bool = False
    missing: str | None = None
    problem: str | None = None
    planned: int | None = None
    share: int = 1  # consecutive seeds that are one independent unit
    # Verdicts that runs left out for divergence could have made.
    unsafe: frozenset[str] = frozenset()
    costs: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def test(self) -> Test:
        """Return the declared test."""
        return self.row["test"]

    @cached_property
    def sources(self) -> list[Source | None]:
        """Return the estimate at every look; None where a sample is empty."""
        return [self.estimator(samples) if all(samples) else None for samples in self.stages]

    @property
    def source(self) -> Source | None:
        """Return the estimate at the last look."""
        return self.sources[-1] if self.sources else None

    @property
    def usable(self) -> bool:
        """Return whether there are data to test."""
        return self.source is not None and not self.missing and not self.problem

    def interval(self, level: float, naive: bool = False) -> Interval | None:
        """Return an interval of the effect; None where there is none.

        Its error is the last look's share of what the level leaves (so all looks together cover at
        the level), but for a ``naive`` one, as if there were no other look.
        """
        if not self.usable or self.source is None:
            return None
        if not self.planned or naive:
            return paired_tests.interval(self.source, level)
        nominal = partial(_nominal, self.planned, self.share, len(self.stages) - 1)
        return paired_tests.interval(self.source, level, nominal)

    def p_value(self, opposite: bool = False) -> float:
        """Return the p-value without Holm's correction; 1 where nothing can be tested.

        ``opposite`` is that of the opposite test, by which the claim is contradicted.

        At planned looks it is the sequential one, the smallest error with which a boundary is
        crossed at any look so far: valid under every rule of stopping, never rising from look to
        look, and fit for Holm's correction, which then tests each claim with the boundaries of its
        own share of the error (Maurer and Bretz 2013). A two-sided test has half of its error on
        either side, each with looks of its own; the side is that of the last effect.
        """
        if not self.usable or self.source is None:
            return 1.0
        margin = self.row["margin"]
        if not self.planned:
            return paired_tests.p_value(self.source, self.test, margin, opposite=opposite)
        above = self.source.effect > margin
        return min(
            paired_tests.p_value(
                source, self.test, margin,
                partial(alpha_spending.overall, planned=self.planned, look=look, share=self.share),
                above, opposite,
            )
            for look, source in enumerate(self.sources) if source is not None
        )  # fmt: skip

    def p_values(self) -> tuple[float, float]:
        """Return the p-values of the test and of its opposite, which superiority shares."""
        p = self.p_value()
        return p, p if self.test == "superiority" else self.p_value(opposite=True)

    def held_back(self, verdict: Verdict) -> Verdict:
        """Return a verdict, or inconclusive where runs that diverged could have made it."""
        return "inconclusive" if verdict in self.unsafe else verdict

    def units(self) -> list[int]:
        """Return the independent units, each by its first seed."""
        return sorted({unit for sample in self.stages[-1] for unit in sample})

    def without(self, unit: int) -> Case:
        """Return the same test without the contrasts of one unit, at every look."""
        stages = [[{u: x for u, x in sample.items() if u != unit} for sample in samples]
                  for samples in self.stages]  # fmt: skip
        return replace(self, stages=stages)

    def plan_more_seeds(self, alpha: float) -> None:
        """Enter the sample size that would decide an inconclusive test, and its training time."""
        row, source = self.row, self.source
        if source is None or not self.usable or self.interval(0.95) is None:
            return
        needed = source.seeds_to_settle(self.test, row["margin"], alpha)
        if needed is None:
            return
        needed = self._seeds(max(needed, row["n"] + 1))
        if self.planned and needed <= self.planned:
            ends = alpha_spending.looks(self.planned, self.share)
            needed = next(end for end in ends if end >= needed)
        row["seeds_to_settle"] = needed
        row["seconds_to_settle"] = (needed - self.samples) * sum(self.costs.values())

    def plan_stated_effect(self, alpha: float) -> None:
        """Enter the sample size that would find the stated effect, at a declared or measured sd."""
        row = self.row
        sd = row["stated_spread"] or row["sd"]
        if row["stated_effect"] is None or not sd:
            return
        needed = paired_tests.seeds_to_settle(
            row["stated_effect"], sd, row["margin"], self.test, alpha, joint_power(self.steps)
        )
        row["seeds_for_power"] = self._seeds(needed) if needed else None

    def _seeds(self, units: int) -> int:
        """Return the seeds that so many units take: seeds that share a parent count once."""
        return ceil(units * max(1.0, self.samples / self.row["n"])) if self.row["n"] else units


def blank(comparison: Comparison, labels: Labels) -> Row:
    """Return the row of a comparison without data."""
    arm, against, label = contrasts.label_of(comparison, labels)
    metric = comparison.get("metric") or "test_accuracy"
    return {
        **empty_row(comparison.get("label") or label, metric, contrasts.unit(comparison),
                 comparison.get("test") or "superiority"),
        "kind": contrasts.kind(comparison), "experiment": comparison["experiment"],
        "arm": arm, "against": against, "against_metric": comparison.get("against_metric"),
        "margin": float(comparison.get("margin") or 0.0),
        "equal": comparison.get("equal") or "images",
        "ancestors": comparison.get("ancestors") or "started",
        "unequal_budget": comparison.get("unequal_budget"), "printed": comparison.get("printed"),
        "stated_effect": _stated(comparison), "stated_spread": comparison.get("spread"),
    }  # fmt: skip


def empty_row(label: str, metric: str, unit: str, test: Test) -> Row:
    """Return a row without results, its keys in the order of the file."""
    return {
        "label": label, "kind": "difference", "experiment": "", "arm": "", "against": "",
        "chosen": None, "metric": metric, "against_metric": None, "unit": unit, "test": test,
        "margin": 0.0, "effect": None, "ci95": None, "ci90": None, "naive95": None, "bca95": None,
        "p": None, "p_holm": None, "p_opposite": None, "p_opposite_holm": None, "n": 0, "sd": None,
        "verdict": "not run", "reason": "", "seeds": [], "differences": [], "keys": [],
        "units": None, "left_out": [], "equal": "images", "ancestors": "started",
        "unequal_budget": None, "printed": None, "pooled": None,
        "seeds_to_settle": None, "seconds_to_settle": None, "look": None, "diverged": [],
        "held_back": None, "of_printed": None, "exploratory": None, "fragile": [], "detail": None,
        "stated_effect": None, "stated_spread": None, "seeds_for_power": None, "beside": None,
        "columns": [],
    }  # fmt: skip


def _stated(comparison: Comparison) -> float | None:
    """Return the effect that a comparison states: its own, else one printed in the same unit.

    A printed effect that does not favour the claim states nothing to plan for.
    """
    printed = comparison.get("printed")
    if comparison.get("effect") is not None or not printed:
        return comparison.get("effect")
    test, margin = comparison.get("test") or "superiority", comparison.get("margin") or 0.0
    value = printed["value"]
    found = (
        abs(value) < margin
        if test == "equivalence"
        else value > (-margin if test == "non-inferiority" else margin)
    )
    return value if found and printed["unit"] == contrasts.unit(comparison) else None


def compare(
    comparison: Comparison, experiments: Mapping[str, ExperimentRuns], records: Records,
    labels: Labels,
    planned: int | None = None, share: int | None = None,
) -> Case:  # fmt: skip
    """Pair the data of one comparison and estimate its effect, at every look that they reached.

    Without ``planned`` seeds all data are one look. An arm with a separate number of seeds, as a
    range test has, limits the plan to that. ``share`` is how many consecutive seeds are one
    independent unit, by default the least common multiple over the arms.
    """
    row = blank(comparison, labels)
    everything = contrasts.collect(comparison, experiments, records)
    arms = {(name, arm): next(a for a in experiments[name]["arms"] if a["id"] == arm)
            for name, arm in everything.arms}  # fmt: skip
    ended = finished(arms.values(), records)
    if planned:
        planned = min([planned, *(a["planned"] for a in arms.values() if a.get("planned"))])
    share = share or lcm(*(a.get("share") or 1 for a in arms.values()))
    looks = [everything]
    if planned and not everything.missing:
        # Each with the choice among controls, and the smallest step, as they were then.
        looks = [contrasts.collect(comparison, first(experiments, end), records)
                 for end in alpha_spending.looks(planned, share) if end <= ended]  # fmt: skip
    pairs = looks[-1] if looks else everything
    columns = [labels.get((name, arm), arm) for name, arm, _ in pairs.columns]
    row |= {"chosen": pairs.chosen, "seeds": pairs.seeds, "differences": pairs.differences,
            "keys": pairs.keys, "left_out": everything.left_out, "columns": columns,
            "diverged": pairs.divergence(labels)}  # fmt: skip
    case = Case(row, looks or [everything], [contrasts.samples(found) for found in looks],
                len(pairs.seeds), contrasts.estimator(comparison), contrasts.steps(comparison),
                not looks, pairs.missing, pairs.problem, planned, share,
                pairs.unsafe(row["test"]))  # fmt: skip
    if planned and not looks:
        case.problem = case.problem or (
            f"no look yet: the first is after {alpha_spending.looks(planned, share)[0]} seeds, of "
            f"which {ended} are finished in every arm"
        )
    elif planned and not pairs.missing:
        row["look"] = _look(len(looks), planned, share)
    for (name, arm), entry in arms.items():
        keys = [key for key in runs_of(entry).values() if key in records]
        spent = [metrics_derived.value(records[key], "seconds") for key in keys]
        known = [seconds for seconds in spent if seconds is not None]
        case.costs[name, arm] = fmean(known) if known else 0.0
    if pairs.seeds:
        # Before the first look an estimate of the data so far, which is not judged.
        found = case.source or case.estimator(contrasts.samples(pairs))
        if found is not None:
            est = found.estimate
            row |= {"effect": est.effect, "sd": est.sd, "n": est.n,
                    "detail": contrasts.detail(comparison, pairs, labels),
                    "naive95": None if pairs.problem else paired_tests.interval(found)}  # fmt: skip
        if case.usable:
            # The smallest step of several has no bootstrap of its own.
            row["bca95"] = None if pairs.steps else paired_tests.bca(pairs.by_unit)
            row["beside"] = sensitivity.figures(pairs, case.test, row["margin"])
        if len(pairs.units) < len(pairs.seeds):
            row["units"] = pairs.units
    row["exploratory"] = _exploratory(case, pairs, everything)
    return case


def _nominal(planned: int, share: int, look: int, error: float) -> float:
    """Return the nominal level of a look for a one-sided error."""
    return alpha_spending.levels(error, planned, share)[look]


def _look(number: int, planned: int, share: int) -> Look:
    """Return the evidence's entry for a look, with the level of its 95 % interval."""
    ends = alpha_spending.looks(planned, share)
    outside = 2 * alpha_spending.levels(paired_tests.ALPHA / 2, planned, share)[number - 1]
    return {"number": number, "of": len(ends), "seeds": ends[number - 1], "planned": planned,
            "level": 1 - outside}  # fmt: skip


def _exploratory(case: Case, used: Pairs, everything: Pairs) -> Exploratory | None:
    """Return the estimate with the data after the last look, which does not decide."""
    places = [i for i, seed in enumerate(everything.seeds) if seed not in set(used.seeds)]
    if not places:
        return None
    found = case.estimator(contrasts.samples(everything))
    if found is None:
        return None
    return {
        "seeds": [everything.seeds[i] for i in places],
        "differences": [everything.differences[i] for i in places],
        "keys": [everything.keys[i] for i in places], "chosen": everything.chosen,
        "n": found.estimate.n, "effect": found.effect, "naive95": paired_tests.interval(found),
    }  # fmt: skip


def pooled(members: Sequence[Case]) -> Case:
    """Pool a claim's comparisons: those of one experiment first, seed by seed.

    Comparisons that the tier does not run are left out by declaration; any other one that lacks
    data leaves the mean open.
    """
    declared = [case for case in members if not case.pairs[0].undeclared]
    absent = sorted({case.row["experiment"] for case in members if case.pairs[0].undeclared})
    members = declared or members
    planned = min((case.planned for case in members if case.planned), default=None)
    share = members[0].share
    # A member without data has one entry, which is empty.
    reached = min(len(case.pairs) for case in members)
    by_look = [_by_experiment(members, look) for look in range(reached)]
    samples, waiting = by_look[-1], any(case.waiting for case in members)
    first = members[0].row
    count = f"{len(samples)} experiment{'s' if len(samples) > 1 else ''}"
    row: Row = {
        **empty_row(f"pooled over {count}", first["metric"], first["unit"], first["test"]),
        "kind": first["kind"], "arm": "pooled", "against": "all comparators",
        "against_metric": first["against_metric"], "unequal_budget": first["unequal_budget"],
        "equal": first["equal"], "ancestors": first["ancestors"],
        "margin": max(case.row["margin"] for case in members),
        "look": _look(reached, planned, share) if planned and not waiting else None,
        "diverged": list(dict.fromkeys(x for m in members for x in m.row["diverged"])),
        "left_out": [f"{name}: not run at this tier" for name in absent],
    }  # fmt: skip
    row["n"] = min(len(sample) for sample in samples.values())
    costs = {arm: cost for case in members for arm, cost in case.costs.items()}
    stages = [list(one.values()) for one in by_look] if not waiting else []
    case = Case(row, [m.pairs[-1] for m in members], stages, row["n"], pool,
                waiting=waiting, planned=planned, share=share, costs=costs,
                unsafe=frozenset().union(*(m.unsafe for m in members)))  # fmt: skip
    lacking = [m.row["experiment"] for m in members if not m.usable]
    mixed = {m.test for m in members}, {m.row["unit"] for m in members}
    if all(m.missing for m in members):
        case.missing = "no data for any of the pooled comparisons"
    elif all(m.waiting for m in members if not m.usable) and waiting:
        case.problem = next(m.problem for m in members if m.waiting)
    elif lacking:
        case.problem = f"the mean over all needs data of {', '.join(dict.fromkeys(lacking))}"
    elif any(len(kinds) > 1 for kinds in mixed):
        case.problem = "comparisons with different tests or units have no common mean"
    elif not isinstance(found := case.source, Pool):
        case.problem = "no spread can be estimated: too few seeds, or no difference anywhere"
    else:
        parts = zip(samples, samples.values(), found.weights, strict=True)
        of: list[PoolMember] = [
            {"experiment": name, "effect": fmean(sample.values()), "weight": weight,
             "n": len(sample)}
            for name, sample, weight in parts
        ]  # fmt: skip
        row |= {"effect": found.effect, "naive95": paired_tests.interval(found),
                "pooled": {"k": found.k, "tau2": found.tau2, "q": found.q, "se": found.se,
                           "experiments": of}}  # fmt: skip
    return case


def _by_experiment(members: Sequence[Case], look: int) -> dict[str, dict[int, float]]:
    """Return the mean differences of each experiment's comparisons at a look, by unit."""
    tables: dict[str, list[dict[int, float]]] = {}
    for case in members:
        tables.setdefault(case.row["experiment"], []).append(contrasts.samples(case.pairs[look])[0])
    return {
        name: {s: fmean(t[s] for t in some) for s in sorted(set.intersection(*map(set, some)))}
        for name, some in tables.items()
    }
