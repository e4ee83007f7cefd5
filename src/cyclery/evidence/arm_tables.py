"""Tables, curves and warnings of one experiment, computed from its records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from cyclery.evidence.contracts import ExperimentRuns, Record, Records
from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.lineage import ancestors_spent
from cyclery.evidence.stats.pairing import (
    by_unit,
    dataset_content,
    diverged_at,
    fault,
    runs_of,
    units,
)
from cyclery.records.budgets import Measure, spent
from cyclery.records.claims import Interval
from cyclery.records.evidence import Arm, Curve, Metric, Schedule
from cyclery.records.metrics import OWN, THIRDS, curve, value
from cyclery.records.readers import shared_settings
from cyclery.records.record import SplitChoice

Cells = dict[str, str | int | float | None]

HEAD = ("experiment", "arm", "seed", "key", "status")
COUNTS: tuple[Measure, ...] = ("images", "views", "forwards", "updates")
COSTS = (*COUNTS, "seconds")
TAIL = (*COSTS, "device", "commit")


def tidy(
    experiments: Sequence[ExperimentRuns], records: Records, metrics: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row per experiment, arm and seed, in declared order.

    Columns: experiment, arm, seed, key, status (``done``, ``diverged``, ``missing``, or
    ``invalid`` where the record is of another run), every scalar of the finals and the derived
    ``metrics`` as fractions (NaN where there is none; on a long tail also the accuracy of common,
    medium and rare classes), images (labelled samples), views (images of all views that the network
    was trained on), forwards (images that passed a network forwards), updates, seconds, device,
    commit.
    """
    rows: list[Cells] = []
    finals: set[str] = set(metrics) - set(OWN)
    for experiment in experiments:
        for arm in experiment["arms"]:
            for seed, key in runs_of(arm).items():
                head: Cells = {"experiment": experiment["id"], "arm": arm["id"], "seed": seed}
                rows.append(head | {"key": key} | _cells(key, seed, records, finals, metrics))
    columns = [*HEAD, *sorted(finals), *TAIL]
    frame = pd.DataFrame(rows, columns=pd.Index(columns))
    numbers = [*sorted(finals), *COSTS]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _cells(
    key: str, seed: int, records: Records, finals: set[str], metrics: Sequence[str]
) -> Cells:
    """Return the cells of one run, and add the names of its finals to ``finals``."""
    record = records.get(key)
    if record is None:
        return {"status": "missing"}
    why = fault(key, seed, records)
    if why and record["status"] != "diverged":
        return {"status": "invalid"}
    cells: Cells = {"status": record["status"], "device": record["device"],
                    "commit": record["commit"]}  # fmt: skip
    cells |= {"seconds": value(record, "seconds")}
    cells |= {name: spent(record, name) for name in COUNTS}
    if record["status"] == "done":
        scalars = [name for name, x in record["final"].items()
                   if x is None or isinstance(x, int | float)]  # fmt: skip
        thirds = THIRDS if _long_tailed(record) else ()
        finals.update(scalars, thirds)
        cells |= {name: value(record, name) for name in [*scalars, *metrics, *thirds]}
    return cells


def _long_tailed(record: Record) -> bool:
    imbalance = record["settings"]["split"]["imbalance"]
    return imbalance is not None and imbalance["kind"] == "long_tail"


def arms(experiment: ExperimentRuns, frame: pd.DataFrame, records: Records) -> list[Arm]:
    """Return the table of an experiment's arms; figures are over its finished runs."""
    out: list[Arm] = []
    metrics = [c for c in frame.columns if c not in (*HEAD, *TAIL)]
    groups = dict(list(frame.groupby("arm", sort=False)))
    for arm in experiment["arms"]:
        rows = groups.get(arm["id"], frame.iloc[:0])
        done = rows[rows["status"] == "done"]
        broken = rows[rows["status"] == "diverged"]
        means = {name: float(done[name].mean()) for name in COSTS}
        seeds = [int(seed) for seed in done["seed"]]
        keys = {int(seed): [key] for seed, key in zip(done["seed"], done["key"], strict=True)}
        drawn = units(keys, records)
        # Plain arrays: thousands of small frames would take most of the time.
        figures = {name: _figure(seeds, done[name].to_numpy(), drawn) for name in metrics}
        out.append({
            "id": arm["id"], "label": arm["label"], "role": arm["role"],
            "own_definition": arm["own_definition"], "method": arm.get("method", ""),
            "data": arm.get("data", ""), "network": arm.get("network", ""),
            "n": len(done), "units": len(drawn) if len(drawn) < len(done) else None,
            "diverged": [{"seed": int(seed), "step": diverged_at(records[key])}
                         for seed, key in zip(broken["seed"], broken["key"], strict=True)],
            "metrics": {name: figure for name, figure in figures.items() if figure},
            "images": means["images"], "views": means["views"], "forwards": means["forwards"],
            "updates": means["updates"], "seconds": means["seconds"],
            "ancestors_images": _before(keys, records, "images"),
            "ancestors_views": _before(keys, records, "views"),
            "ancestors_forwards": _before(keys, records, "forwards"),
            "keys": [*rows["key"][rows["status"] != "missing"]], "tuned": arm["tuned"],
        })  # fmt: skip
        if found := arm.get("searched"):
            out[-1]["searched"] = found
    return out


def _before(keys: Mapping[int, Sequence[str]], records: Records, measure: Measure) -> float | None:
    """Return the mean over seeds of what all ancestors of a run took."""
    counts = [ancestors_spent(key, records, measure) for [key] in keys.values()]
    known = [count for count in counts if count is not None]
    return fmean(known) if known else None


def _figure(
    seeds: Sequence[int], column: np.ndarray[Any, Any], drawn: Sequence[Sequence[int]]
) -> Metric | None:
    """Return mean, spread, interval and values of one metric of one arm; NaN is left out.

    The first three are over what was drawn independently, each by the mean of its seeds.
    """
    by_seed = {seed: float(x) for seed, x in zip(seeds, column, strict=True) if x == x}
    if not by_seed:
        return None
    est = paired_tests.estimate(by_unit(by_seed, drawn))
    return {"mean": est.effect, "sd": est.sd, "ci95": paired_tests.interval(est),
            "values": list(by_seed.values()), "seeds": list(by_seed)}  # fmt: skip


def curves(experiment: ExperimentRuns, records: Records) -> list[Curve]:
    """Return the mean and 95 % t band across seeds of every arm's curves, but the training loss.

    Only finished runs; at each epoch only those with a finite value there. ``n`` is the number of
    runs; bounds are None where fewer than two have a value. Seeds that were not drawn
    independently enter by their mean.
    """
    out: list[Curve] = []
    for arm in experiment["arms"]:
        keys = {s: [key] for s, key in runs_of(arm).items() if fault(key, s, records) is None}
        runs = [records[key] for [key] in keys.values()]
        places = {seed: i for i, seed in enumerate(keys)}
        drawn = [[places[seed] for seed in unit] for unit in units(keys, records)]
        logged = {name for run in runs for name in run["curve"]} - {"train_loss"}
        names = sorted(name for name in logged if name.startswith(("test_", "val_", "train_")))
        for name in names:
            band = _band(arm["id"], name, [curve(run, name) for run in runs], drawn)
            if band:
                out.append(band)
    return out


def _band(
    arm: str, metric: str, runs: Sequence[tuple[list[int], list[Any]]],
    drawn: Sequence[Sequence[int]],
) -> Curve | None:  # fmt: skip
    """Return mean and band of several curves, of which some belong together."""
    epochs = sorted({epoch for at, _ in runs for epoch in at})
    place = {epoch: i for i, epoch in enumerate(epochs)}
    table = np.full((len(runs), len(epochs)), np.nan)
    for row, (at, values) in zip(table, runs, strict=True):
        row[[place[epoch] for epoch in at]] = [np.nan if v is None else float(v) for v in values]
    table[~np.isfinite(table)] = np.nan
    if not runs:
        return None
    # Curves of a unit are logged at the same epochs, so a mean with a gap is a gap.
    table = np.stack([table[list(unit)].mean(axis=0) for unit in drawn])
    kept = [i for i in range(len(epochs)) if np.isfinite(table[:, i]).any()]
    if not kept:
        return None
    columns = [table[np.isfinite(table[:, i]), i] for i in kept]
    found = [paired_tests.estimate(column) for column in columns]
    bands = [_ends(est) for est in found]
    return {"arm": arm, "metric": metric, "epoch": [epochs[i] for i in kept],
            "mean": [est.effect for est in found],
            "low": [low for low, _ in bands], "high": [high for _, high in bands],
            "n": len(runs)}  # fmt: skip


def _ends(est: paired_tests.Estimate) -> Interval | tuple[None, None]:
    if est.sd == 0:
        return est.effect, est.effect
    return paired_tests.interval(est) or (None, None)


def schedules(experiment: ExperimentRuns) -> list[Schedule]:
    """Return the schedules of all arms as a list."""
    return [
        {"quantity": quantity, "arm": arm["id"], "epoch": list(points["epoch"]),
         "value": list(points["value"])}
        for arm in experiment["arms"]
        for quantity, points in sorted(arm["schedules"].items())
    ]  # fmt: skip


def _mixed(records: Sequence[Record]) -> list[str]:
    """Return warnings about data, versions or devices that differ within an experiment."""

    def setting(name: str) -> Callable[[Record], str]:
        return lambda record: json.dumps(record["settings"].get(name), sort_keys=True)

    checks: dict[str, Callable[[Record], str | None]] = {
        "devices": lambda r: r["device"],
        "torch versions": lambda r: r["versions"].get("torch"),
        "cyclery versions": lambda r: r["versions"].get("cyclery"),
        "commits": lambda r: r["commit"],
        "contents of the dataset": dataset_content,
        "datasets": setting("dataset"),
        "precisions": setting("precision"),
    }
    out = []
    for name, read in checks.items():
        found = sorted({str(read(record)) for record in records})
        if len(found) > 1:
            out.append(f"Mixed {name}: {', '.join(found)}.")
    return [*out, *_mixed_splits(records)]


def _mixed_splits(records: Sequence[Record]) -> list[str]:
    """Name the keys of the split that differ, with their values: of some arms they do by design."""
    splits = [_held_out(record["settings"]["split"]) for record in records]
    said = []
    for key in sorted({key for split in splits for key in split}):
        values = {json.dumps(split.get(key), sort_keys=True) for split in splits}
        if len(values) > 1:
            # Numbers by their size.
            said.append(f"{key} {', '.join(sorted(values, key=lambda text: (len(text), text)))}")
    return [f"Mixed splits: {'; '.join(said)}."] if said else []


def _held_out(split: SplitChoice) -> dict[str, Any]:
    """Return a split without what leaves alone which samples are labelled and held out.

    That is what a method uses besides the labelled samples, seeds that share a split and the folds
    of a parent.
    """
    but = (
        "unlabelled", "share", "folds", "fold", "part", "hierarchy", "hierarchy_order", "coarse",
        "unlabelled_pool", "unlabelled_imbalance",
    )  # fmt: skip
    found: dict[str, Any] = {key: value for key, value in split.items() if key not in but}
    if known := split.get("open_set"):
        found["open_set"] = known["classes"]
    return found


def _mixed_code(records: Sequence[Record]) -> list[str]:
    """Name the code that changed between runs though its version is one, with how many runs each.

    Records without hashes of their code, as older ones are, say nothing.
    """
    found: dict[str, Counter[str]] = {}
    for record in records:
        settings, code = record["settings"], record.get("code", {})
        method = settings["method"]
        parts = {"method": f"the method {method['name']} (version {method['version']})",
                 "engine": f"the engine (version {settings['engine']})"}  # fmt: skip
        for part, name in parts.items():
            if code.get(part):
                found.setdefault(name, Counter())[code[part]] += 1
    return [
        f"Mixed code of {name}: "
        + ", ".join(f"{count} runs by {state[:8]}" for state, count in sorted(states.items()))
        + "."
        for name, states in sorted(found.items())
        if len(states) > 1
    ]


def _other_settings(arm: str, done: pd.DataFrame, records: Records) -> list[str]:
    """Name settings, versions of methods among them, that differ between an arm's own runs."""
    first: dict[str, object] = {}
    mixed: set[str] = set()
    for key in done["key"]:
        for name, chosen in shared_settings(records[key]).items():
            if first.setdefault(name, chosen) != chosen:
                mixed.add(name)
    return [f"{arm}: its runs differ in {', '.join(sorted(mixed))}."] if mixed else []


def _seeds(arm: str, seeds: Sequence[int], what: str) -> str:
    text = ", ".join(map(str, sorted(seeds)))
    return f"{arm}: seed{'s' if len(seeds) > 1 else ''} {text} {what}."


def warnings(experiment: ExperimentRuns, frame: pd.DataFrame, records: Records) -> list[str]:
    """Return the warnings about an experiment's data, for readers of its tables."""
    used = {key: records[key] for key in frame["key"] if key in records}
    out = _mixed([used[key] for key in sorted(used)]) + _mixed_code(list(used.values()))
    # Range tests have seeds of their own.
    trained = np.array(
        [key not in used or used[key]["kind"] == "run" for key in frame["key"]], dtype=bool
    )
    frame = frame.loc[trained]
    everywhere = {int(seed) for seed in frame["seed"]}
    metrics = [c for c in frame.columns if c not in (*HEAD, *TAIL)]
    reported = {"missing": "not run", "invalid": "left out, the record is of another run",
                "diverged": "diverged: not in the figures of the arm"}  # fmt: skip
    for arm, rows in frame.groupby("arm", sort=False):
        lacking = everywhere - {int(seed) for seed in rows["seed"]}
        if lacking:
            out.append(_seeds(str(arm), sorted(lacking), "not planned, other arms have them"))
        twice = rows["seed"][rows["key"].duplicated(keep=False)]
        if len(twice):
            out.append(_seeds(str(arm), [int(s) for s in twice], "are one and the same run"))
        for status, what in reported.items():
            seeds = [int(seed) for seed in rows["seed"][rows["status"] == status]]
            if seeds:
                out.append(_seeds(str(arm), seeds, what))
        done = rows[rows["status"] == "done"]
        out += _other_settings(str(arm), done, records)
        finals = {name for key in done["key"] for name in records[key]["final"]}
        for name in sorted(finals.intersection(metrics)):
            seeds = [int(seed) for seed in done["seed"][done[name].isna()]]
            if seeds:
                out.append(_seeds(str(arm), seeds, f"without a finite {name}"))
    return out
