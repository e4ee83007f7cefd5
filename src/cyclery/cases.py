"""One test on its way to a row of the evidence: a comparison, or the mean of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

from cyclery import metrics_derived, stats
from cyclery.pairs import Json, Pairs, Records, collect, runs_of
from cyclery.pooling import Pool, pool, seeds_to_settle_pool
from cyclery.stats import Estimate, Interval, Test

Labels = Mapping[tuple[str, str], str]


@dataclass
class Case:
    """One test: a comparison, or a pooled claim, on its way to a row of the evidence."""

    row: Json
    pairs: list[Pairs]
    source: Estimate | Pool | None
    samples: int
    missing: str | None = None
    problem: str | None = None
    planned: int | None = None
    costs: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def test(self) -> Test:
        """Return the declared test."""
        name: Test = self.row["test"]
        return name

    @property
    def usable(self) -> bool:
        """Tell whether there is something to test."""
        return self.source is not None and not self.missing and not self.problem

    def interval(self, level: float) -> Interval | None:
        """Return an interval of the effect; None where there is none."""
        if not self.usable or self.source is None:
            return None
        if isinstance(self.source, Pool):
            return self.source.interval(level)
        return stats.interval(self.source, level)

    def p_value(self) -> float:
        """Return the unadjusted p-value; 1 where nothing can be tested."""
        if not self.usable or self.source is None:
            return 1.0
        if isinstance(self.source, Pool):
            return self.source.p_value(self.test, self.row["margin"])
        return stats.p_value(self.source, self.test, self.row["margin"])

    def settle(self, alpha: float) -> None:
        """Enter the seeds and seconds that would settle an inconclusive test."""
        row, source = self.row, self.source
        if not self.usable or self.interval(0.95) is None:
            return
        if isinstance(source, Pool):
            needed = seeds_to_settle_pool(source, self.test, row["margin"], alpha)
        elif source is not None:
            needed = stats.seeds_to_settle(
                source.effect, source.sd, row["margin"], self.test, alpha
            )
        if needed is None:
            return
        # Of seeds that share a parent only one counts.
        needed = ceil(max(needed, row["n"] + 1) * max(1.0, self.samples / row["n"]))
        row["seeds_to_settle"] = needed
        row["seconds_to_settle"] = (needed - self.samples) * sum(self.costs.values())


def blank(comparison: Json, labels: Labels) -> Json:
    """Return the row of a comparison without data."""
    against, metric = comparison["against"], comparison.get("metric") or "test_accuracy"
    text = str(against)
    if isinstance(against, Mapping):
        best = against.get("best_of")
        text = f"best of {', '.join(best)}" if best else f"{against['constant']:g}"
    name = (comparison["experiment"], comparison["arm"])
    other = labels.get((comparison["experiment"], text), text)
    return {
        "label": comparison.get("label") or f"{labels.get(name, name[1])} against {other}",
        "experiment": name[0], "arm": name[1], "against": text, "chosen": None,
        "metric": metric, "against_metric": comparison.get("against_metric"),
        "unit": metrics_derived.unit(metric), "test": comparison.get("test") or "superiority",
        "margin": float(comparison.get("margin") or 0.0), "effect": None, "ci95": None,
        "ci90": None, "bca95": None, "p": None, "p_holm": None, "n": 0, "sd": None,
        "verdict": "not run", "reason": "", "seeds": [], "differences": [], "keys": [],
        "units": None, "left_out": [], "unequal_budget": comparison.get("unequal_budget"),
        "printed": comparison.get("printed"), "pooled": None, "seeds_to_settle": None,
        "seconds_to_settle": None,
    }  # fmt: skip


def compare(
    comparison: Json, experiments: Mapping[str, Json], records: Records, labels: Labels
) -> Case:
    """Pair the data of one comparison and estimate its effect."""
    row, pairs = blank(comparison, labels), collect(comparison, experiments, records)
    row |= {"chosen": pairs.chosen, "seeds": pairs.seeds, "differences": pairs.differences,
            "keys": pairs.keys, "left_out": pairs.left_out}  # fmt: skip
    case = Case(row, [pairs], None, len(pairs.seeds), pairs.missing, pairs.problem)
    for name, arm in pairs.arms:
        entry = next(a for a in experiments[name]["arms"] if a["id"] == arm)
        keys = [key for key in runs_of(entry).values() if key in records]
        spent = [metrics_derived.value(records[key], "seconds") for key in keys]
        known = [seconds for seconds in spent if seconds is not None]
        case.costs[name, arm] = fmean(known) if known else 0.0
    if pairs.seeds:
        values = pairs.by_unit
        case.source = stats.estimate(values)
        row |= {"effect": case.source.effect, "sd": case.source.sd, "n": case.source.n}
        row["bca95"] = stats.bca(values) if case.usable else None
        if len(pairs.units) < len(pairs.seeds):
            row["units"] = pairs.units
    return case


def pooled(members: Sequence[Case]) -> Case:
    """Pool a claim's comparisons: those of one experiment first, seed by seed.

    Comparisons that the tier does not run are left out by declaration; any other one that lacks
    data leaves the mean open.
    """
    declared = [case for case in members if not case.pairs[0].undeclared]
    absent = sorted({case.row["experiment"] for case in members if case.pairs[0].undeclared})
    members = declared or members
    by_experiment: dict[str, list[dict[int, float]]] = {}
    for case in members:
        pairs = case.pairs[0]
        named = {unit[0]: x for unit, x in zip(pairs.units, pairs.by_unit, strict=True)}
        by_experiment.setdefault(case.row["experiment"], []).append(named)
    samples = {
        name: {s: fmean(t[s] for t in tables) for s in sorted(set.intersection(*map(set, tables)))}
        for name, tables in by_experiment.items()
    }
    first = members[0].row
    count = f"{len(samples)} experiment{'s' if len(samples) > 1 else ''}"
    row = {**first, "label": f"pooled over {count}", "experiment": "",
           "arm": "pooled", "against": "all comparators", "chosen": None, "bca95": None, "sd": None,
           "margin": max(case.row["margin"] for case in members), "effect": None, "units": None,
           "printed": None, "seeds": [], "differences": [], "keys": [],
           "left_out": [f"{name}: not run at this tier" for name in absent]}  # fmt: skip
    row["n"] = min(len(sample) for sample in samples.values())
    costs = {arm: cost for case in members for arm, cost in case.costs.items()}
    case = Case(row, [m.pairs[0] for m in members], None, row["n"], costs=costs)
    lacking = [m.row["experiment"] for m in members if not m.usable]
    mixed = {m.test for m in members}, {m.row["unit"] for m in members}
    if all(m.missing for m in members):
        case.missing = "no data for any of the pooled comparisons"
    elif lacking:
        case.problem = f"the mean over all needs data of {', '.join(dict.fromkeys(lacking))}"
    elif any(len(kinds) > 1 for kinds in mixed):
        case.problem = "comparisons with different tests or units have no common mean"
    elif (found := pool(list(samples.values()))) is None:
        case.problem = "no spread can be estimated: too few seeds, or no difference anywhere"
    else:
        case.source = found
        parts = zip(samples, samples.values(), found.weights, strict=True)
        row |= {"effect": found.effect, "pooled": {
            "k": found.k, "tau2": found.tau2, "q": found.q, "se": found.se,
            "experiments": [{"experiment": name, "effect": fmean(sample.values()),
                             "weight": weight, "n": len(sample)}
                            for name, sample, weight in parts]}}  # fmt: skip
    return case
