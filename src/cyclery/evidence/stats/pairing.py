"""Pair one declared comparison by seed, and list the seeds left out with reasons.

A pair enters only if both runs have ended, belong to this seed and have the metric; each pair that
does not is named with the reason. A run that diverged has the accuracy of chance; where its metric
is no accuracy, its pair is left out, and verdicts that this could favour are held back. What was
drawn independently is the unit: seeds whose runs share an ancestor (a teacher, or the teacher of a
teacher) count once, by the mean of their differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from cyclery.evidence.contracts import (
    Against,
    ArmRuns,
    Comparison,
    ExperimentRuns,
    Labels,
    Records,
)
from cyclery.records import record as stored
from cyclery.records.claims import Test
from cyclery.records.metrics import shown, smaller_is_better, worst

Stored = Mapping[str, stored.Record]
LISTED = 4


@dataclass
class Pairs:
    """The data of one comparison; differences are oriented so that the claim is positive.

    ``missing`` says why there are no data at all (``undeclared``: the tier does not run the arms),
    ``problem`` why those that there are cannot be tested.
    """

    seeds: list[int] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    keys: list[list[str | None]] = field(default_factory=list)
    units: list[list[int]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    chosen: str | None = None
    arms: list[tuple[str, str]] = field(default_factory=list)
    missing: str | None = None
    undeclared: bool = False
    problem: str | None = None
    # Experiment, arm and metric of the runs that a seed's keys name, in their order.
    columns: list[tuple[str, str, str]] = field(default_factory=list)
    # Each seed's metric in every column, in the unit of the comparison.
    figures: list[list[float]] = field(default_factory=list)
    # Of an ordering, each seed's step from an arm to the next.
    steps: list[list[float]] = field(default_factory=list)
    # Of every column the seeds that diverged, and what they count as, None where left out.
    diverged: list[tuple[list[int], float | None]] = field(default_factory=list)

    @property
    def by_unit(self) -> list[float]:
        """Return one difference per independent unit."""
        return by_unit(dict(zip(self.seeds, self.differences, strict=True)), self.units)

    def unsafe(self, test: Test) -> frozenset[str]:
        """Return the verdicts of a test that runs left out for divergence could have made.

        A difference is judged on the seeds that survived, so an arm must not win that lost more
        of them than its rival; an equivalence can be won or lost by either's losses. Equal losses,
        and those that count as chance, favour nobody.
        """
        lost = [0 if worth is not None else len(seeds) for seeds, worth in self.diverged]
        lost += [0] * (2 - len(lost))  # a constant loses nothing
        if test == "equivalence" or len(lost) > 2:
            return frozenset(("reproduced", "contradicted") if len(set(lost)) > 1 else ())
        own, rival = lost
        return frozenset(["reproduced"] * (own > rival) + ["contradicted"] * (rival > own))

    def divergence(self, labels: Labels) -> list[str]:
        """Say which arms' runs diverged, and what they count as."""
        said = {}
        for (name, arm, metric), (seeds, worth) in zip(self.columns, self.diverged, strict=False):
            if seeds:
                counts = "left out" if worth is None else f"counted as chance, {worth:.4g} %"
                where = f"'{labels.get((name, arm), arm)}' in {seed_list(seeds)} ({counts})"
                said[name, arm, metric if worth is None else ""] = where
        return list(dict.fromkeys(said.values()))


def runs_of(arm: ArmRuns) -> dict[int, str]:
    """Return an arm's run keys by seed, in order of the seeds."""
    return dict(sorted(arm["runs"].items()))


def diverged_at(record: stored.Record) -> int | None:
    """Return the update at which a run stopped being finite."""
    return record["diverged_step"] if record["kind"] == "run" else None


def fault(key: str | None, seed: int, records: Stored) -> str | None:
    """Say why a run cannot be used, or None where it can."""
    record = records.get(key) if key else None
    if record is None:
        return "is not run"
    if record["status"] == "diverged":
        return f"diverged at step {diverged_at(record)}"
    if record["status"] != "done":
        return "has a record that is not of a finished run"
    # A record filed under another run's name would put a wrong number into the table.
    same = (record["key"], record["settings"]["seed"]) == (key, seed)
    return None if same else "has the record of another run"


def dataset_content(record: stored.Record) -> str:
    """Return the hash of the content of the dataset that a run was trained on."""
    return record["inputs"]["dataset"]


def at_chance(arm: ArmRuns, metric: str) -> float | None:
    """Return what a run that diverged is worth by its metric, in the unit of comparisons.

    That of an accuracy is chance. None where the metric has no such value, or the number of classes
    is not known.
    """
    return worst(metric, arm["classes"]) if arm.get("classes") else None


def diverged_seeds(arm: ArmRuns, records: Records) -> list[int]:
    """Return the seeds of an arm whose runs diverged."""
    return [seed for seed, key in runs_of(arm).items() if _diverged(key, records)]


def _diverged(key: str, records: Records) -> bool:
    return key in records and records[key]["status"] == "diverged"


def _usable(arm: ArmRuns, metric: str, records: Records) -> tuple[dict[int, float], dict[int, str]]:
    """Return an arm's metric by seed, and the reason for every seed without one."""
    values: dict[int, float] = {}
    faults: dict[int, str] = {}
    chance, lost = at_chance(arm, metric), diverged_seeds(arm, records)
    for seed, key in runs_of(arm).items():
        why = fault(key, seed, records)
        found = chance if seed in lost else None if why else shown(records[key], metric)
        if found is not None:
            values[seed] = found
        else:
            faults[seed] = f"'{arm['id']}' " + (why or f"has no finite {metric}")
    return values, faults


def finished(arms: Iterable[ArmRuns], records: Records) -> int:
    """Return how many seeds, from the first on without a gap, have the outcome of every arm's run.

    An outcome is a metric, or divergence.
    """
    columns = [(runs_of(arm), arm.get("first_seed", 0)) for arm in arms]
    count = 0
    while columns and all(
        _has_ended(runs.get(start + count), start + count, records) for runs, start in columns
    ):
        count += 1
    return count


def _has_ended(key: str | None, seed: int, records: Records) -> bool:
    return (key is not None and _diverged(key, records)) or fault(key, seed, records) is None


def first(experiments: Mapping[str, ExperimentRuns], seeds: int) -> dict[str, ExperimentRuns]:
    """Return experiments with the runs of their first seeds alone."""

    def cut(arm: ArmRuns) -> ArmRuns:
        end = arm.get("first_seed", 0) + seeds
        return {**arm, "runs": {s: key for s, key in runs_of(arm).items() if s < end}}

    return {name: {**one, "arms": [cut(arm) for arm in one["arms"]]}
            for name, one in experiments.items()}  # fmt: skip


def any_record(arm: ArmRuns, records: Records) -> bool:
    """Tell whether an arm has run."""
    return any(key in records for key in arm["runs"].values())


def _choose(arms: Sequence[ArmRuns], by: str, records: Records) -> tuple[str | None, str]:
    """Return the best of several arms by the mean of a validation metric, or why none is.

    Compared on the seeds common to all. An arm with diverged runs is no tuned control: it is
    chosen only if every arm has some. Of equal arms the first declared one is taken.
    """
    absent = [arm["id"] for arm in arms if not any_record(arm, records)]
    if absent:
        return None, f"the best control is unknown: no run of {', '.join(absent)}"

    steady = [arm for arm in arms if not diverged_seeds(arm, records)] or list(arms)
    tables = [_usable(arm, by, records)[0] for arm in steady]
    common = set.intersection(*(set(table) for table in tables))
    if not common:
        return None, f"the best control is unknown: no seed has {by} in all of them"
    sign = -1 if smaller_is_better(by) else 1
    means = [sign * fmean(table[seed] for seed in sorted(common)) for table in tables]
    set_aside = [arm["id"] for arm in arms if arm not in steady]
    note = f"{', '.join(set_aside)} set aside for diverged runs" if set_aside else ""
    return steady[means.index(max(means))]["id"], note


def sides(comparison: Comparison) -> tuple[str, Against]:
    """Return the two sides of a difference, which a comparison of that kind has."""
    arm, against = comparison.get("arm"), comparison.get("against")
    assert arm is not None and against is not None, "the configuration checks it"
    return arm, against


def declared(
    pairs: Pairs, name: str, wanted: Sequence[str], experiments: Mapping[str, ExperimentRuns]
) -> list[ArmRuns] | None:
    """Return arms by their names and enter them; None, and the reason, if one is not run."""
    if name not in experiments:
        pairs.missing, pairs.undeclared = f"experiment '{name}' is not run at this tier", True
        return None
    arms = {arm["id"]: arm for arm in experiments[name]["arms"]}
    for arm in wanted:
        if arm not in arms:
            pairs.missing = f"arm '{arm}' of '{name}' is not run at this tier"
            pairs.undeclared = True
            return None
    pairs.arms = [(name, arm) for arm in dict.fromkeys(wanted)]
    return [arms[arm] for arm in wanted]


def tables(
    arms: Sequence[ArmRuns], metric: str, records: Records
) -> tuple[list[dict[int, float]], dict[int, str]]:
    """Return a metric by seed for each of several arms, and why a seed lacks one."""
    out: list[dict[int, float]] = []
    faults: dict[int, str] = {}
    every = {seed for arm in arms for seed in runs_of(arm)}
    for arm in arms:
        values, more = _usable(arm, metric, records)
        absent = sorted(every - runs_of(arm).keys())
        more |= {seed: f"'{arm['id']}' has no such seed" for seed in absent}
        faults = {**more, **faults}
        out.append(values)
    return out, faults


def collect(
    comparison: Comparison, experiments: Mapping[str, ExperimentRuns], records: Records
) -> Pairs:
    """Return the paired differences of a declared comparison.

    ``against`` is the name of an arm, ``{"best_of": [...], "by": metric}`` or
    ``{"constant": number}`` (in the unit of the comparison).
    """
    name, (arm_name, against) = comparison["experiment"], sides(comparison)
    best = against if not isinstance(against, str) and "best_of" in against else None
    others = best["best_of"] if best else [against] if isinstance(against, str) else []
    pairs = Pairs()
    found = declared(pairs, name, [arm_name, *others], experiments)
    if found is None:
        return pairs
    arms = {arm["id"]: arm for arm in found}
    without = [arm for _, arm in pairs.arms if not any_record(arms[arm], records)]
    if len(without) == len(pairs.arms) or (without and not best) or arm_name in without:
        pairs.missing = f"no run of {', '.join(repr(arm) for arm in without)} yet"
        return pairs
    if best:
        pairs.chosen, note = _choose(
            [arms[other] for other in others], best.get("by", "val_accuracy"), records
        )
        if pairs.chosen is None:
            pairs.problem = note
            return pairs
        pairs.left_out += [note] if note else []
        others = [pairs.chosen]
    other = arms[others[0]] if others else None
    _pair(pairs, comparison, arms[arm_name], other, records)
    return pairs


def _pair(
    pairs: Pairs, comparison: Comparison, arm: ArmRuns, other: ArmRuns | None, records: Records
) -> None:
    """Fill in the differences of one arm against another, or against a constant."""
    metric = comparison.get("metric") or "test_accuracy"
    other_metric = comparison.get("against_metric") or metric
    mine, faults = _usable(arm, metric, records)
    mine_keys = runs_of(arm)
    _, against = sides(comparison)
    if other is None:
        assert not isinstance(against, str) and "constant" in against
        constant = float(against["constant"])
        theirs, their_keys = dict.fromkeys(mine, constant), dict.fromkeys(mine, "")
    else:
        theirs, more = _usable(other, other_metric, records)
        their_keys = runs_of(other)
        faults |= {seed: why for seed, why in more.items() if seed not in faults}
        for here, there, who in ((mine_keys, their_keys, other), (their_keys, mine_keys, arm)):
            faults |= {s: f"'{who['id']}' has no such seed" for s in here if s not in there}
    sign = -1.0 if comparison.get("lower_is_better") else 1.0
    both = sorted(mine.keys() & theirs.keys())
    if other is not None:
        # On other images the same seed is another split, so there is no pair.
        odd = [seed for seed in both if _other_data(mine_keys[seed], their_keys[seed], records)]
        faults |= dict.fromkeys(odd, "the two runs saw different contents of the dataset")
        both = [seed for seed in both if seed not in odd]
        odd = [seed for seed in both if _other_classes(mine_keys[seed], their_keys[seed], records)]
        faults |= dict.fromkeys(odd, "the two runs are tested on samples of other classes")
        both = [seed for seed in both if seed not in odd]
    for seed in both:
        pairs.seeds.append(seed)
        pairs.differences.append(sign * (mine[seed] - theirs[seed]))
        pairs.figures.append([mine[seed], theirs[seed]][: 1 if other is None else 2])
        pairs.keys.append([mine_keys[seed], their_keys[seed] or None])
    same = [seed for seed, (a, b) in zip(pairs.seeds, pairs.keys, strict=True) if a == b]
    if same and metric == other_metric:
        pairs.problem = "both arms are the same runs, so there is nothing to compare"
    pairs.columns = [(comparison["experiment"], arm["id"], metric)]
    if other is not None:
        pairs.columns.append((comparison["experiment"], other["id"], other_metric))
    pairs.units = units(dict(zip(pairs.seeds, pairs.keys, strict=True)), records)
    pairs.left_out += listed(faults)


def _other_data(one: str, other: str, records: Records) -> bool:
    """Tell whether two runs are known to be trained on different contents of a dataset."""
    return dataset_content(records[one]) != dataset_content(records[other])


def _other_classes(one: str, other: str, records: Records) -> bool:
    """Tell whether two runs know other classes, in an open set or without one."""
    known, others = (records[key]["settings"]["split"].get("open_set") for key in (one, other))
    return (known and known["classes"]) != (others and others["classes"])


def units(runs: Mapping[int, Sequence[str | None]], records: Stored) -> list[list[int]]:
    """Group seeds, given with their run keys, that were not drawn independently.

    They are not where a run of one is, or descends from, a run that one of another descends from,
    and where they share a split; directly or through a third seed.
    """
    groups: list[tuple[set[str], list[int]]] = []
    for seed, keys in runs.items():
        common = _common(seed, [key for key in keys if key], records)
        joined = [group for group in groups if group[0] & common]
        groups = [group for group in groups if not group[0] & common]
        members = sorted([seed, *(s for group in joined for s in group[1])])
        groups.append((common.union(*(group[0] for group in joined)), members))
    return sorted(members for _, members in groups)


def by_unit(values: Mapping[int, float], drawn: Iterable[Iterable[int]]) -> list[float]:
    """Return the mean of each unit's values, given by seed; a unit without one is left out."""
    found = ([values[seed] for seed in unit if seed in values] for unit in drawn)
    return [fmean(members) for members in found if members]


def _common(seed: int, keys: list[str], records: Stored) -> set[str]:
    """Return what the runs of a seed may have in common with those of another."""
    found = {*keys, *ancestors(keys, records)}
    for key in keys:
        if key in records and (share := records[key]["settings"]["split"]["share"]) > 1:
            found.add(f"split {seed // share} of {share}")
    return found


def ancestors(keys: Iterable[str], records: Stored) -> set[str]:
    """Return the run keys of the parents of runs, of their parents and so on."""
    found: set[str] = set()
    left = list(keys)
    while left:
        record = records.get(left.pop())
        used = record["inputs"]["parents"].values() if record else ()
        parents = {parent["key"] for members in used for parent in members}
        left += parents - found
        found |= parents
    return found


def listed(faults: Mapping[int, str]) -> list[str]:
    """Return one line per reason, with its seeds."""
    by_reason: dict[str, list[int]] = {}
    for seed, why in sorted(faults.items()):
        by_reason.setdefault(why, []).append(seed)
    lines = []
    for why, seeds in by_reason.items():
        lines.append(f"{seed_list(seeds)}: {why}")
    return lines


def seed_list(seeds: Sequence[int]) -> str:
    """Return seeds in words; a long list ends with the number of the others."""
    text = ", ".join(map(str, seeds[:LISTED]))
    text += f" and {len(seeds) - LISTED} more" if len(seeds) > LISTED else ""
    return f"seed{'s' if len(seeds) > 1 else ''} {text}"
