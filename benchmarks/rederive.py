"""Judge claims once more, from `cyclery export` alone, and compare the verdicts.

    cyclery export --to exported --tier smoke
    python benchmarks/rederive.py exported

Nothing of the package is imported: the rule of docs/evidence.md is written here a second time, with
numpy, scipy and pyarrow, which reads the tables. By default all contradicted claims are judged, and
of the others that are tested the ten whose SHA-256 of `tier/paper.claim` is the smallest; `--all`
judges every tested claim. The family of Holm's correction is always whole, so every comparison of a
paper is computed in any case. Ends with code 1 where a verdict is another one.

Done: differences (with the best of several controls, constants, two metrics), interactions, trends,
orderings, rank correlations, flatness, pooled means; units that share a parent or a split; looks
with alpha spending; the sequential p-values of each test and its opposite; runs that diverged.
Taken from the export as they are: the figures of runs, but for those read off curves (`@`,
`_median20`, `_mean20`, `log:`), and which metrics are percentages. Flatness resamples with random
numbers of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rederive_rule import Sample, adjust, combined, correlated, flatness, judge_one, looks, trend

Json = dict[str, Any]
Values = dict[int, float]


@dataclass
class Export:
    """The tables of an export, as plain values."""

    claims: list[Json]
    # By paper, experiment and arm: rows by seed.
    arms: dict[tuple[str, str, str], dict[int, Json]]
    # By run and metric: epochs and values.
    curves: dict[tuple[str, str], tuple[list[int], list[float]]]

    @classmethod
    def read(cls, folder: Path) -> Export:
        """Return the tables of a folder."""
        arms: dict[tuple[str, str, str], dict[int, Json]] = defaultdict(dict)
        for row in pq.read_table(folder / "runs.parquet").to_pylist():
            arms[row["paper"], row["experiment"], row["arm"]][row["seed"]] = row
        curves: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
        columns = pq.read_table(folder / "curves.parquet").to_pydict()
        for key, metric, epoch, value in zip(*columns.values(), strict=True):
            epochs, values = curves.setdefault((key, metric), ([], []))
            epochs.append(epoch)
            values.append(value)
        return cls(pq.read_table(folder / "claims.parquet").to_pylist(), dict(arms), curves)

    def figure(self, row: Json, metric: str) -> float | None:
        """Return a figure of a finished run in its own unit; None where it has none."""
        if metric.startswith("log:"):
            inner = self.figure(row, metric.removeprefix("log:"))
            return math.log(inner) if inner is not None and inner > 0 else None
        name, at, fraction = metric.partition("@")
        if at and (row["key"], name) in self.curves:
            epochs, values = self.curves[row["key"], name]
            # The last evaluation is the end of the run.
            places = [(e + row["epochs"] - epochs[-1]) / row["epochs"] for e in epochs]
            return _finite(values[int(np.argmin(np.abs(np.array(places) - float(fraction))))])
        for end, summary in (("_median20", np.median), ("_mean20", np.mean)):
            name = metric.removesuffix(end)
            if name != metric and (row["key"], name) in self.curves:
                values = self.curves[row["key"], name][1]
                late = values[-min(20, -(-len(values) // 4)) :]
                return _finite(float(summary(late)))
        return _finite(row.get(metric))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


@dataclass
class Data:
    """What a comparison has of each seed of a look."""

    # Of each step; one list for all but an ordering.
    steps: list[Values] = field(default_factory=list)
    keys: dict[int, list[str]] = field(default_factory=dict)
    problem: bool = False
    lost: list[int] = field(default_factory=list)


class Comparison:
    """A declared comparison, with the runs of its arms."""

    def __init__(self, export: Export, row: Json) -> None:
        self.export, self.row, self.declared = export, row, json.loads(row["declared"])
        self.paper, self.test, self.margin = row["paper"], row["test"], row["margin"]
        self.kind, self.percent = row["kind"], set(row["percent"])
        parts = [self.declared]
        if self.kind == "interaction":
            other = {k: v for k, v in self.declared["interaction"].items() if v is not None}
            parts.append({**self.declared, **other})
        self.parts = parts
        names = [(part["experiment"], arm) for part in parts for arm in self._names(part)]
        found = [export.arms.get((self.paper, *name), {}) for name in dict.fromkeys(names)]
        # An arm of which no run is there is not run, unless it is one control of several.
        ran = [any(row["status"] in ("done", "diverged") for row in arm.values()) for arm in found]
        self.missing = not all(ran)
        rows = [row for arm in found for row in arm.values()]
        if self.missing:
            return
        self.share = math.lcm(*(row["share"] for row in rows))
        most = [row["seeds_at_most"] for row in rows if row["seeds_at_most"]]
        self.planned = int(min([row["planned_seeds"], *most]))
        self.first = min(row["first_seed"] for row in rows)
        self.ended = 0
        while all(
            (row := arm.get(self.first + self.ended)) and row["status"] in ("done", "diverged")
            for arm in found
        ):
            self.ended += 1
        self.ways = len(self.declared["ordering"]) - 1 if self.kind == "ordering" else 1

    def _names(self, part: Json) -> list[str]:
        if self.kind in ("difference", "interaction"):
            against = part["against"]
            if isinstance(against, str):
                return [part["arm"], against]
            return [part["arm"], *against.get("best_of", [])]
        if self.kind == "trend":
            return list(part["trend"]["values"])
        if self.kind == "flatness":
            return [*part["flatness"]["arms"], *part["flatness"]["against"]]
        if self.kind == "ordering":
            return list(part["ordering"])
        correlation = part["rank_correlation"]
        return list(correlation["values"] or correlation["arms"])

    def _table(self, experiment: str, arm: str, metric: str, end: int) -> Values:
        """Return an arm's metric by seed, in the unit of the comparison; chance if diverged."""
        out, scale = {}, 100.0 if metric in self.percent else 1.0
        for seed, row in self._rows(experiment, arm, end).items():
            if row["status"] == "diverged" and scale > 1 and row["classes"]:
                out[seed] = 100.0 / row["classes"]
            elif row["status"] == "done":
                value = self.export.figure(row, metric)
                if value is not None:
                    out[seed] = scale * value
        return out

    def _rows(self, experiment: str, arm: str, end: int) -> dict[int, Json]:
        rows = self.export.arms[self.paper, experiment, arm]
        return {seed: row for seed, row in sorted(rows.items()) if seed < self.first + end}

    def _lost(self, experiment: str, arm: str, metric: str, end: int) -> int:
        """Return how many diverged runs leave their seed out."""
        if metric in self.percent:
            return 0
        return sum(r["status"] == "diverged" for r in self._rows(experiment, arm, end).values())

    def at(self, end: int) -> Data:
        """Return what the first seeds have, so many of them."""
        if self.kind in ("difference", "interaction"):
            first, *others = [self._difference(part, end) for part in self.parts]
            for other in others:
                [here], [there] = first.steps, other.steps
                both = sorted(here.keys() & there.keys())
                first.steps = [{seed: here[seed] - there[seed] for seed in both}]
                first.keys = {seed: first.keys[seed] + other.keys[seed] for seed in both}
                first.problem |= other.problem
                first.lost += other.lost
            return first
        return self._several(end)

    def _difference(self, part: Json, end: int) -> Data:
        name, against, metric = part["experiment"], part["against"], part["metric"]
        other_metric = part["against_metric"] or metric
        out, mine = Data(), self._table(name, part["arm"], metric, end)
        rows = self._rows(name, part["arm"], end)
        out.lost = [self._lost(name, part["arm"], metric, end)]
        sign = -1.0 if part["lower_is_better"] else 1.0
        if isinstance(against, dict) and "constant" in against:
            out.steps = [{s: sign * (v - against["constant"]) for s, v in mine.items()}]
            out.keys = {seed: [rows[seed]["key"]] for seed in mine}
            out.lost.append(0)
            return out
        other = against if isinstance(against, str) else self._best(name, against, end)
        theirs, their_rows = (
            self._table(name, other, other_metric, end),
            self._rows(name, other, end),
        )
        out.lost.append(self._lost(name, other, other_metric, end))
        both = [
            seed for seed in sorted(mine.keys() & theirs.keys())
            if rows[seed]["content"] == their_rows[seed]["content"]
            and _classes(rows[seed]) == _classes(their_rows[seed])
        ]  # fmt: skip
        out.steps = [{seed: sign * (mine[seed] - theirs[seed]) for seed in both}]
        out.keys = {seed: [rows[seed]["key"], their_rows[seed]["key"]] for seed in both}
        same = any(len(set(pair)) == 1 for pair in out.keys.values())
        out.problem = same and metric == other_metric
        return out

    def _best(self, experiment: str, against: Json, end: int) -> str:
        """Return the control with the best mean of what chooses, on the seeds that all have."""
        by, names = against["by"], against["best_of"]
        rows = {name: self._rows(experiment, name, end).values() for name in names}
        steady = [n for n in names if all(r["status"] != "diverged" for r in rows[n])] or names
        tables = [self._table(experiment, name, by, end) for name in steady]
        common = sorted(set.intersection(*(set(table) for table in tables)))
        sign = -1.0 if by in self.row["smaller_is_better"] else 1.0
        means = [sign * float(np.mean([table[seed] for seed in common])) for table in tables]
        return steady[int(np.argmax(means))]

    def _several(self, end: int) -> Data:
        part, out = self.declared, Data()
        name, names, metric = part["experiment"], self._names(part), part["metric"]
        tables = [self._table(name, arm, metric, end) for arm in names]
        rows = [self._rows(name, arm, end) for arm in names]
        correlation = part["rank_correlation"] or {}
        other = correlation.get("metric")
        others = [self._table(name, arm, other, end) for arm in names] if other else []
        sign = -1.0 if part["lower_is_better"] else 1.0
        out.steps = [{} for _ in range(self.ways)]
        out.lost = [self._lost(name, arm, metric, end) for arm in names]
        for seed in sorted(set.intersection(*(set(table) for table in [*tables, *others]))):
            y = sign * np.array([table[seed] for table in tables])
            x = np.array([table[seed] for table in others]) if other else None
            numbers = self._numbers(y, x)
            if numbers is None:
                continue
            for step, number in zip(out.steps, numbers, strict=True):
                step[seed] = number
            out.keys[seed] = [table[seed]["key"] for table in rows]
        out.problem = any(len(set(keys)) < len(keys) for keys in out.keys.values())
        return out

    def _numbers(self, y: np.ndarray, x: np.ndarray | None) -> list[float] | None:
        """Return what a seed contributes, given each arm's metric; None where it is left out."""
        part = self.declared
        if self.kind == "ordering":
            return [float(step) for step in y[:-1] - y[1:]]
        if self.kind == "trend":
            return [trend(y, part["trend"])]
        if self.kind == "flatness":
            flat, n = part["flatness"], len(part["flatness"]["arms"])
            up = -y if part["metric"] in self.row["smaller_is_better"] else y
            return [flatness(up[:n], flat) - flatness(up[n:], flat)]
        correlation = part["rank_correlation"]
        if x is None:
            x = np.array(list(correlation["values"].values()), dtype=float)
        if np.ptp(y) == 0 or np.ptp(x) == 0:
            return None
        return [correlated(x, y, correlation["coefficient"])]

    def samples(self, data: Data) -> list[Values]:
        """Return the means of each independent unit, by its first seed."""
        groups: list[tuple[set[str], list[int]]] = []
        rows = {row["key"]: row for arm in self.export.arms.values() for row in arm.values()}
        for seed, keys in data.keys.items():
            common = set(keys)
            for key in keys:
                common |= set(rows[key]["ancestors"] or [])
                share = json.loads(rows[key]["settings"])["split"]["share"]
                common |= {f"split {seed // share} of {share}"} if share > 1 else set()
            joined = [group for group in groups if group[0] & common]
            groups = [group for group in groups if not group[0] & common]
            seeds = sorted([seed, *(s for group in joined for s in group[1])])
            groups.append((common.union(*(group[0] for group in joined)), seeds))
        units = sorted(seeds for _, seeds in groups)
        return [
            {unit[0]: float(np.mean([step[seed] for seed in unit])) for unit in units}
            for step in data.steps
        ]  # fmt: skip


def _classes(row: Json) -> Any:
    known = json.loads(row["settings"])["split"].get("open_set")
    return known and known["classes"]


def rederive(export: Export) -> dict[tuple[str, str], tuple[str, list[Json]]]:
    """Return the verdict of each tested claim by paper and claim, and its judged comparisons."""
    papers: dict[str, dict[str, list[Json]]] = defaultdict(lambda: defaultdict(list))
    for row in export.claims:
        if not row["not_tested"]:
            papers[row["paper"]][row["claim"]].append(row)
    out = {}
    for paper, claims in papers.items():
        family: list[Sample] = []
        of: dict[str, list[Sample]] = {}
        for name, rows in claims.items():
            members = [Comparison(export, row) for row in rows if row["declared"]]
            if rows[0]["pooled"]:
                of[name] = [pool(members)]
            else:
                of[name] = [sample(member) for member in members]
            family += of[name]
        adjust(family)
        for name, samples in of.items():
            found = [judge_one(each) for each in samples]
            out[paper, name] = (combined([each["verdict"] for each in found]), found)
    return out


def sample(comparison: Comparison) -> Sample:
    """Return the data of a comparison at each look that its seeds have reached."""
    if comparison.missing:
        return Sample.empty(comparison.test, comparison.margin)
    share, planned = comparison.share, comparison.planned
    data = [comparison.at(end) for end in looks(planned, share) if end <= comparison.ended]
    last = data[-1] if data else Data(problem=True)
    stages = [comparison.samples(each) for each in data]
    return Sample(comparison.test, comparison.margin, comparison.kind, planned, share, stages,
                  last.problem, last.lost)  # fmt: skip


def pool(members: list[Comparison]) -> Sample:
    """Return the mean over comparisons, those of one experiment first, at looks that all reached.

    Comparisons that the tier does not run are left out.
    """
    kept = [member for member in members if not member.missing]
    if not kept:
        return Sample.empty(members[0].test, members[0].margin)
    planned, share = min(m.planned for m in kept), math.lcm(*(m.share for m in kept))
    ended = min(member.ended for member in kept)
    stages = []
    for end in (end for end in looks(planned, share) if end <= ended):
        tables: dict[str, list[Values]] = defaultdict(list)
        for member in kept:
            tables[member.row["experiment"]] += member.samples(member.at(end))
        stages.append([
            {unit: float(np.mean([table[unit] for table in several]))
             for unit in sorted(set.intersection(*(set(table) for table in several)))}
            for several in tables.values()
        ])  # fmt: skip
    margin = max(member.margin for member in kept)
    return Sample(kept[0].test, margin, "pooled", planned, share, stages, not stages)


def chosen(export: Export, count: int) -> list[tuple[str, str]]:
    """Return the claims that are compared: all contradicted ones, and some by a fixed rule."""
    verdicts = {
        (row["paper"], row["claim"]): (row["claim_verdict"], row["tier"])
        for row in export.claims if not row["not_tested"]
    }  # fmt: skip
    contradicted = [name for name, (verdict, _) in verdicts.items() if verdict == "contradicted"]
    others = sorted(
        (name for name in verdicts if name not in contradicted),
        key=lambda name: sha256(f"{verdicts[name][1]}/{'.'.join(name)}".encode()).hexdigest(),
    )
    return contradicted + others[:count]


def main() -> int:
    """Judge, compare and print; 1 where a verdict is another one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="what `cyclery export` wrote")
    parser.add_argument("--others", type=int, default=10, help="claims besides contradicted ones")
    parser.add_argument("--all", action="store_true", help="every tested claim")
    options = parser.parse_args()
    export = Export.read(options.folder)
    made = rederive(export)
    wanted = chosen(export, len(made) if options.all else options.others)
    wrong, off = 0, 0.0
    for name in wanted:
        rows = [row for row in export.claims if (row["paper"], row["claim"]) == name]
        said, (own, found) = rows[0]["claim_verdict"], made[name]
        # Of a pooled claim its mean stands first, and no other row has a verdict of its own here.
        for row, each in zip(rows, found, strict=False):
            for a, b in ((row["effect"], each["effect"]), (row["p"], each["p"])):
                if a is not None and b is not None:
                    off = max(off, abs(a - b) / max(1e-3, abs(a)))
        agree = said == own
        wrong += not agree
        print(f"{'agrees ' if agree else 'DIFFERS'} {'.'.join(name)}: {said}, here {own}")
    contradicted = sum(made[name][0] == "contradicted" for name in wanted)
    print(
        f"{len(wanted) - wrong} of {len(wanted)} verdicts agree ({contradicted} contradicted); "
        f"effects and p-values differ by at most {off:.2g} of their size"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
