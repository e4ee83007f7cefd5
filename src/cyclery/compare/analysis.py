"""Paired or Welch tests between two sets of results, arm by arm, and changed verdicts.

Verdicts stand side by side. An arm's means are compared by the paired t test over the seeds that
both sets have, if both trained it with the same configuration, because the same seed is then the
same split, weights and order; else by Welch's t test. p is Holm-adjusted over the arms. An effect
is that of B minus A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

from cyclery.common.errors import UserError, choices, nearest
from cyclery.compare.contracts import ArmRow, ClaimRow, Found, Only
from cyclery.compare.result_sets import Name, ResultSet, Run, arm_settings, flat
from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.paired_tests import ALPHA, Estimate
from cyclery.evidence.stats.pairing import by_unit, units
from cyclery.records.claims import Test
from cyclery.records.metrics import unit
from cyclery.records.record import Record

# What two trainings of one run agree in, if they agree to the last bit.
NUMBERS = ("status", "diverged_step", "curve", "final", "images", "views", "updates")


def compare(a: ResultSet, b: ResultSet, metric: str, margin: float) -> Found:
    """Return the comparison, ready for JSON.

    Args:
        a: one set.
        b: the other one.
        metric: what the arms are compared by.
        margin: arms whose 90 % interval lies within +-margin are called equal; in the metric's
            unit, percentage points for accuracies.
    """
    _check_metric(metric, a, b)
    shared = [name for name in a.arms if name in b.arms]
    rows = [_arm(name, a, b, metric) for name in shared]
    for row, source in rows:
        row["ci95"] = paired_tests.interval(source) if source else None
        row["ci90"] = paired_tests.interval(source, 0.90) if source else None
    sources = [source for _, source in rows]
    for (row, source), differs, equal in zip(
        rows, _adjusted(sources, "superiority", 0.0), _adjusted(sources, "equivalence", margin),
        strict=True,
    ):  # fmt: skip
        if source is not None and source.se is not None:
            row["p"], row["p_equal"] = differs, equal
    for row, _ in rows:
        row["outcome"] = _outcome(row, margin)
    return {
        "schema": 1, "a": str(a.path), "b": str(b.path), "metric": metric, "unit": unit(metric),
        "margin": margin, "claims": _claims(a, b), "arms": [row for row, _ in rows],
        "differences": _differences(a, b, shared),
        "only": {"a": _only(a, b), "b": _only(b, a)},
    }  # fmt: skip


def _adjusted(sources: Sequence[Estimate | None], test: Test, edge: float) -> list[float]:
    """Return the p-values of all arms with Holm's correction."""
    return paired_tests.holm(
        [paired_tests.p_value(source, test, edge) if source else 1.0 for source in sources]
    )


def _check_metric(metric: str, a: ResultSet, b: ResultSet) -> None:
    for found in (a, b):
        runs = [run for runs in found.arms.values() for run in runs.values()]
        if not any(run.value(metric) is not None for run in runs if not run.problem()):
            finals = {name for run in runs for name in (*run.figures, *_finals(run))}
            raise UserError(
                f"{found.path}: no run has the metric {metric!r}.{nearest(metric, finals)} "
                f"There are: {choices(finals) or 'none'}."
            )


def _finals(run: Run) -> Sequence[str]:
    if run.record is None or run.record["kind"] != "run":
        return []
    return [name for name, value in run.record["final"].items() if isinstance(value, int | float)]


def welch(a: Sequence[float], b: Sequence[float]) -> Estimate | None:
    """Return the difference of two means, b - a, with Welch's standard error and df.

    None without a value on each side; without a spread on both sides it has no standard error.
    """
    if not a or not b:
        return None
    left, right = paired_tests.estimate(a), paired_tests.estimate(b)
    effect, n = right.effect - left.effect, min(left.n, right.n)
    if n < 2:
        return Estimate(effect, None, 0, n, None)
    parts = (left.se or 0.0) ** 2, (right.se or 0.0) ** 2
    if not sum(parts):
        return Estimate(effect, None, 0, n, 0.0)
    df = sum(parts) ** 2 / (parts[0] ** 2 / (left.n - 1) + parts[1] ** 2 / (right.n - 1))
    return Estimate(effect, sqrt(sum(parts)), df, n, None)


def _arm(name: Name, a: ResultSet, b: ResultSet, metric: str) -> tuple[ArmRow, Estimate | None]:
    """Return the row of one arm and the estimate of its difference."""
    sides = [found.arms[name] for found in (a, b)]
    values, left_out = [], []
    for label, runs in zip("AB", sides, strict=True):
        usable = {}
        for seed, run in sorted(runs.items()):
            why = run.problem()
            value = None if why else run.value(metric)
            if value is None:
                left_out.append(f"{label}: seed {seed} {why or f'has no finite {metric}'}")
            else:
                usable[seed] = value
        values.append(usable)
    common = sorted(values[0].keys() & values[1].keys())
    alike = _same_configuration(sides[0], sides[1])
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]
    identical = [left.seed for left, right in pairs if _identical(left, right)]
    drawn = [_units(runs, found.records) for runs, found in zip(sides, (a, b), strict=True)]
    if alike and common:
        differences = {seed: values[1][seed] - values[0][seed] for seed in common}
        for label, own in zip("AB", values, strict=True):
            left_out += [f"{label}: seed {seed} has no partner" for seed in sorted(own)
                         if seed not in differences]  # fmt: skip
        source: Estimate | None = paired_tests.estimate(by_unit(differences, drawn[0]))
        means = [_mean([own[seed] for seed in common]) for own in values]
    else:
        samples = [by_unit(own, unit) for own, unit in zip(values, drawn, strict=True)]
        source = welch(*samples)
        means = [_mean(sample) for sample in samples]
    row: ArmRow = {
        "paper": name[0], "experiment": name[1], "arm": name[2],
        "test": "paired" if alike and common else "Welch", "same_configuration": alike,
        "n": [len(own) for own in values], "seeds": common, "mean": means,
        "effect": source.effect if source else None, "units": source.n if source else 0,
        "identical": identical, "compared": len(pairs), "left_out": left_out,
        "ci95": None, "ci90": None, "p": None, "p_equal": None, "outcome": "",
    }  # fmt: skip
    return row, source


def _mean(values: Sequence[float]) -> float | None:
    return paired_tests.estimate(values).effect if values else None


def _units(runs: Mapping[int, Run], records: Mapping[str, Record]) -> list[list[int]]:
    return units({seed: [run.key] for seed, run in runs.items()}, records)


def _same_configuration(a: Mapping[int, Run], b: Mapping[int, Run]) -> bool:
    """Say whether the seeds that both sets have were trained with the same settings and parents.

    A run key is a hash of all that decides a run's numbers; sets without keys cannot say.
    """
    common = a.keys() & b.keys()
    keys = [(a[seed].key, b[seed].key) for seed in common]
    if not keys or not all(left and left == right for left, right in keys):
        return False
    both = [(_contents(a[seed].record), _contents(b[seed].record)) for seed in common]
    return all(None in pair or pair[0] == pair[1] for pair in both)


def _contents(record: Record | None) -> str | None:
    """Return the hash of the content of a run's dataset."""
    return record["inputs"]["dataset"] if record else None


def _identical(a: Run, b: Run) -> bool:
    """Say whether two runs are one and the same to the last bit of all that was kept of them."""
    if a.key is None or a.key != b.key or a.status != b.status or a.status == "missing":
        return False
    if a.record is not None and b.record is not None:
        weights = (a.record.get("checkpoint_sha256"), b.record.get("checkpoint_sha256"))
        return all(a.record.get(name) == b.record.get(name) for name in NUMBERS) and (
            None in weights or weights[0] == weights[1]
        )
    # A table has no curves; the time that a run took is no figure of it.
    names = (a.figures.keys() | b.figures.keys()) - {"seconds"}
    return bool(names) and all(a.figures.get(n) == b.figures.get(n) for n in names)


def _outcome(row: ArmRow, margin: float) -> str:
    if row["compared"] and len(row["identical"]) == row["compared"]:
        return "identical"
    if row["p"] is None or row["p_equal"] is None or row["ci90"] is None:
        return "too few runs" if row["units"] < 2 else "no spread"
    equal = row["p_equal"] < ALPHA and max(map(abs, row["ci90"])) < margin
    if row["p"] < ALPHA:
        return "differs, within the margin" if equal else "differs"
    return "equal within the margin" if equal else "cannot tell"


def _claims(a: ResultSet, b: ResultSet) -> list[ClaimRow]:
    """Return the verdicts of claims that both sets judge, those that moved first."""
    rows: list[ClaimRow] = []
    for paper, claim in a.claims:
        if (paper, claim) not in b.claims:
            continue
        sides = a.claims[paper, claim], b.claims[paper, claim]
        rows.append({
            "paper": paper, "claim": claim, "moved": sides[0]["verdict"] != sides[1]["verdict"],
            "statements_differ": sides[0]["statement"] != sides[1]["statement"],
            "a": sides[0], "b": sides[1],
        })  # fmt: skip
    return sorted(rows, key=lambda row: not row["moved"])


def _only(one: ResultSet, other: ResultSet) -> Only:
    """Return what one set has and the other lacks."""
    arms = [name for name in one.arms if name not in other.arms]
    seeds = {
        "/".join(name): sorted(runs.keys() - other.arms[name].keys())
        for name, runs in one.arms.items() if name in other.arms
    }  # fmt: skip
    return {
        "claims": [".".join(name) for name in one.claims if name not in other.claims],
        "arms": ["/".join(name) for name in arms],
        "seeds": {name: found for name, found in seeds.items() if found},
    }


def _differences(a: ResultSet, b: ResultSet, shared: Sequence[Name]) -> list[str]:
    """Name what else differs between the sets: settings, data, versions, devices."""
    reads: dict[str, Callable[[Record], str | None]] = {
        "contents of the dataset": _contents,
        "torch versions": lambda r: r["versions"].get("torch"),
        "cyclery versions": lambda r: r["versions"].get("cyclery"),
        "Python versions": lambda r: r["versions"].get("python"),
        "devices": lambda r: r["device"],
        "commits": lambda r: r["commit"],
    }
    out = []
    for name, read in reads.items():
        sides = [_values(found, read, name) for found in (a, b)]
        if sides[0] != sides[1]:
            texts = [", ".join(sorted(side)) or "not known" for side in sides]
            out.append(f"{name}: A {texts[0]}; B {texts[1]}")
        elif len(sides[0]) > 1:
            out.append(f"{name}: both mix {', '.join(sorted(sides[0]))}")
    for arm in shared:
        changed = _changed(a.arms[arm], b.arms[arm])
        if changed:
            out.append(f"settings of {'/'.join(arm)}: {'; '.join(changed)}")
    return out


def _values(found: ResultSet, read: Callable[[Record], str | None], name: str) -> set[str]:
    """Return what the records say, or without records the evidence."""
    if found.records:
        return {value for record in found.records.values() if (value := read(record))}
    if name == "devices":
        return {value for said in found.said for value in said["devices"]}
    if name == "commits":
        return {value for said in found.said for value in said["commits"]}
    if name.endswith("versions"):
        package = name.split()[0].lower()
        return {v[package] for said in found.said for v in said["versions"] if package in v}
    return set()


def _changed(a: Mapping[int, Run], b: Mapping[int, Run]) -> list[str]:
    """Return the settings of an arm that differ between the sets, or how that can only be told."""
    records = [[run.record for _, run in sorted(runs.items()) if run.record] for runs in (a, b)]
    if not all(records):
        known = [(a[s].key, b[s].key) for s in a.keys() & b.keys()]
        odd = any(left and right and left != right for left, right in known)
        return ["the run keys differ, and without records nobody can say by what"] if odd else []
    sides = [dict(flat(arm_settings(found[0]))) for found in records]
    names = sorted(
        name
        for name in sides[0].keys() | sides[1].keys()
        if sides[0].get(name) != sides[1].get(name)
    )
    out = [f"{name} {sides[0].get(name, 'not set')} -> {sides[1].get(name, 'not set')}"
           for name in names]  # fmt: skip
    mixed = [label for label, found in zip("AB", records, strict=True)
             if any(arm_settings(r) != arm_settings(found[0]) for r in found)]  # fmt: skip
    return out + [f"{label} mixes settings within the arm" for label in mixed]
