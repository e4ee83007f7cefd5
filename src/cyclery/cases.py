"""One test on its way to a row of the evidence: a comparison, or the mean of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from statistics import fmean

from cyclery import metrics_derived, sequential, stats
from cyclery.pairs import Json, Pairs, Records, collect, runs_of
from cyclery.pooling import Pool, pool, seeds_to_settle_pool
from cyclery.stats import Estimate, Interval, Test

Labels = Mapping[tuple[str, str], str]
# Differences by unit (its first seed): one sample, or one for each pooled experiment.
Samples = list[dict[int, float]]


@dataclass
class Case:
    """One test: a comparison, or a pooled claim, on its way to a row of the evidence.

    ``pairs`` and ``stages`` have an entry for every look that the data have reached (one of all
    data where no number of seeds is planned). Before the first look ``pairs`` holds what there is,
    ``waiting`` is true and there are no stages.
    """

    row: Json
    pairs: list[Pairs]
    stages: list[Samples]
    samples: int
    pools: bool = False
    waiting: bool = False
    missing: str | None = None
    problem: str | None = None
    planned: int | None = None
    costs: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def test(self) -> Test:
        """Return the declared test."""
        name: Test = self.row["test"]
        return name

    @cached_property
    def sources(self) -> list[Estimate | Pool | None]:
        """Return the estimate at every look."""
        if self.pools:
            return [pool(samples) if all(samples) else None for samples in self.stages]
        return [stats.estimate(list(sample.values())) if sample else None
                for [sample] in self.stages]  # fmt: skip

    @property
    def source(self) -> Estimate | Pool | None:
        """Return the estimate at the last look."""
        return self.sources[-1] if self.sources else None

    @property
    def usable(self) -> bool:
        """Tell whether there is something to test."""
        return self.source is not None and not self.missing and not self.problem

    def interval(self, level: float, naive: bool = False) -> Interval | None:
        """Return an interval of the effect; None where there is none.

        Its error is the last look's share of what the level leaves (so all looks together cover at
        the level), but for a ``naive`` one, as if there were no other look.
        """
        if not self.usable or self.source is None:
            return None
        tail = (1 - level) / 2
        if self.planned and not naive:
            tail = sequential.levels(tail, self.planned)[len(self.stages) - 1]
        if isinstance(self.source, Pool):
            return self.source.bounds(tail)
        return stats.bounds(self.source, tail)

    def p_value(self) -> float:
        """Return the p-value without Holm's correction; 1 where nothing can be tested."""
        if not self.usable:
            return 1.0
        # A two-sided test has half of its error on either side, and each side its own looks.
        sides = 2 if self.test == "superiority" else 1
        tails = [self._tail(source) for source in self.sources]
        p = sequential.sequential_p(tails, self.planned) if self.planned else tails[-1]
        return min(1.0, sides * p)

    def _tail(self, source: Estimate | Pool | None) -> float:
        """Return the one-sided p-value of one look's data alone."""
        margin, last = self.row["margin"], self.source
        if source is None or last is None:
            return 1.0
        if isinstance(source, Pool):
            p = source.p_value(self.test, margin)
        else:
            p = stats.p_value(source, self.test, margin)
        if self.test != "superiority":
            return p
        return p / 2 if (source.effect > margin) == (last.effect > margin) else 1 - p / 2

    def units(self) -> list[int]:
        """Return what was drawn independently, by its first seed."""
        return sorted({unit for sample in self.stages[-1] for unit in sample})

    def without(self, unit: int) -> Case:
        """Return the same test without the differences of one unit, at every look."""
        stages = [[{u: x for u, x in sample.items() if u != unit} for sample in samples]
                  for samples in self.stages]  # fmt: skip
        return replace(self, stages=stages)

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
        if self.planned and needed <= self.planned:
            needed = next(end for end in sequential.looks(self.planned) if end >= needed)
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
        "ci90": None, "naive95": None, "bca95": None, "p": None, "p_holm": None, "n": 0, "sd": None,
        "verdict": "not run", "reason": "", "seeds": [], "differences": [], "keys": [],
        "units": None, "left_out": [], "unequal_budget": comparison.get("unequal_budget"),
        "pooled": None, "seeds_to_settle": None, "seconds_to_settle": None, "look": None,
        "exploratory": None, "fragile": [],
    }  # fmt: skip


def compare(
    comparison: Json, experiments: Mapping[str, Json], records: Records, labels: Labels,
    planned: int | None = None,
) -> Case:  # fmt: skip
    """Pair the data of one comparison and estimate its effect, at every look that they reached.

    Without ``planned`` seeds all data are one look. An arm whose seeds are declared apart, as a
    range test has them, plans no more than it has.
    """
    row, everything = blank(comparison, labels), collect(comparison, experiments, records)
    arms = {(name, arm): next(a for a in experiments[name]["arms"] if a["id"] == arm)
            for name, arm in everything.arms}  # fmt: skip
    if planned:
        planned = min([planned, *(a["planned"] for a in arms.values() if a.get("planned"))])
    looks = _looks(comparison, experiments, records, everything, planned)
    pairs = looks[-1] if looks else everything
    row |= {"chosen": pairs.chosen, "seeds": pairs.seeds, "differences": pairs.differences,
            "keys": pairs.keys, "left_out": everything.left_out}  # fmt: skip
    stages = [[_sample(found)] for found in looks]
    case = Case(row, looks or [everything], stages, len(pairs.seeds), waiting=not looks,
                missing=pairs.missing, problem=pairs.problem, planned=planned)  # fmt: skip
    if planned and not looks:
        case.problem = case.problem or (
            f"no look yet: the first is after {sequential.looks(planned)[0]} seeds, of which "
            f"{everything.finished} are finished in every arm"
        )
    elif planned and not pairs.missing:
        row["look"] = _look(len(looks), planned)
    for (name, arm), entry in arms.items():
        keys = [key for key in runs_of(entry).values() if key in records]
        spent = [metrics_derived.value(records[key], "seconds") for key in keys]
        known = [seconds for seconds in spent if seconds is not None]
        case.costs[name, arm] = fmean(known) if known else 0.0
    if pairs.seeds:
        values = pairs.by_unit
        found = stats.estimate(values)
        row |= {"effect": found.effect, "sd": found.sd, "n": found.n,
                "naive95": None if pairs.problem else stats.interval(found)}  # fmt: skip
        row["bca95"] = stats.bca(values) if case.usable else None
        if len(pairs.units) < len(pairs.seeds):
            row["units"] = pairs.units
    row["exploratory"] = _exploratory(pairs, everything)
    return case


def _looks(
    comparison: Json, experiments: Mapping[str, Json], records: Records, everything: Pairs,
    planned: int | None,
) -> list[Pairs]:  # fmt: skip
    """Return the pairs of every look that the data have reached."""
    if not planned or everything.missing:
        return [everything]
    return [
        # With the choice among controls as it was then.
        collect(comparison, experiments, records, below=end)
        for end in sequential.looks(planned)
        if end <= everything.finished
    ]


def _look(number: int, planned: int) -> Json:
    """Return what the evidence says of a look, with the share that the 95 % interval leaves out."""
    ends = sequential.looks(planned)
    share = 2 * sequential.levels(stats.ALPHA / 2, planned)[number - 1]
    return {"number": number, "of": len(ends), "seeds": ends[number - 1], "planned": planned,
            "level": 1 - share}  # fmt: skip


def _sample(pairs: Pairs) -> dict[int, float]:
    """Return the differences by unit."""
    return {unit[0]: x for unit, x in zip(pairs.units, pairs.by_unit, strict=True)}


def _exploratory(used: Pairs, everything: Pairs) -> Json | None:
    """Return what the data after the last look would say, which decides nothing."""
    places = [i for i, seed in enumerate(everything.seeds) if seed not in set(used.seeds)]
    if not places:
        return None
    found = stats.estimate(everything.by_unit)
    return {
        "seeds": [everything.seeds[i] for i in places],
        "differences": [everything.differences[i] for i in places],
        "keys": [everything.keys[i] for i in places], "chosen": everything.chosen,
        "n": found.n, "effect": found.effect, "naive95": stats.interval(found),
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
    # A member without data has the one entry that says so.
    reached = min(len(case.pairs) for case in members)
    by_look = [_by_experiment(members, look) for look in range(reached)]
    samples, waiting = by_look[-1], any(case.waiting for case in members)
    first = members[0].row
    count = f"{len(samples)} experiment{'s' if len(samples) > 1 else ''}"
    row = {**first, "label": f"pooled over {count}", "experiment": "",
           "arm": "pooled", "against": "all comparators", "chosen": None, "bca95": None, "sd": None,
           "margin": max(case.row["margin"] for case in members), "effect": None, "units": None,
           "seeds": [], "differences": [], "keys": [], "naive95": None, "exploratory": None,
           "look": _look(reached, planned) if planned and not waiting else None,
           "left_out": [f"{name}: not run at this tier" for name in absent]}  # fmt: skip
    row["n"] = min(len(sample) for sample in samples.values())
    costs = {arm: cost for case in members for arm, cost in case.costs.items()}
    stages = [list(one.values()) for one in by_look] if not waiting else []
    case = Case(row, [m.pairs[-1] for m in members], stages, row["n"], pools=True,
                waiting=waiting, planned=planned, costs=costs)  # fmt: skip
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
        row |= {"effect": found.effect, "naive95": found.interval(), "pooled": {
            "k": found.k, "tau2": found.tau2, "q": found.q, "se": found.se,
            "experiments": [{"experiment": name, "effect": fmean(sample.values()),
                             "weight": weight, "n": len(sample)}
                            for name, sample, weight in parts]}}  # fmt: skip
    return case


def _by_experiment(members: Sequence[Case], look: int) -> dict[str, dict[int, float]]:
    """Return the mean differences of each experiment's comparisons at a look, by unit."""
    tables: dict[str, list[dict[int, float]]] = {}
    for case in members:
        tables.setdefault(case.row["experiment"], []).append(_sample(case.pairs[look]))
    return {
        name: {s: fmean(t[s] for t in some) for s in sorted(set.intersection(*map(set, some)))}
        for name, some in tables.items()
    }
