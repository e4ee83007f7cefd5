"""Read a metric off a run's record.

A metric is one of

- a key of ``record["final"]``, or one of the record's own numbers (``seconds``, ``images``, ...);
- ``name@fraction``: the curve ``name`` at the evaluation nearest that fraction of the run;
- ``test_accuracy_median20``, ``_mean20``: median and mean of the last 20 evaluations on the way
  (FixMatch and MixMatch report the median, PyTorch ports the mean), but never of more than the
  last quarter of them, rounded up; the same of ``val_accuracy`` and of both with ``raw_``;
- ``test_accuracy_best``: the highest of all evaluations, as some libraries report. It chooses on
  the test set, so it is for display only and no claim may use it;
- ``train_pseudo_accuracy``, a curve: the share of right ones among the pseudo-labels that an epoch
  used, ``train_pseudo_correct / train_mask_rate``;
- ``minority_accuracy``: mean accuracy of the classes with fewer training samples than the middle
  between the smallest and the largest class (the smaller half of a two-level imbalance);
- ``many_accuracy``, ``medium_accuracy``, ``few_accuracy``: mean accuracy of the thirds of the
  classes by training samples, the larger third first where three does not divide their number;
- ``log:name``: its natural logarithm, so that differences are ratios (of training times, say).

Accuracies are fractions in records and percentage points in comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, log
from statistics import fmean, median
from typing import Any

import numpy as np

Record = Mapping[str, Any]

OWN = ("seconds", "images", "views", "updates", "images_per_second")
THIRDS = ("many_accuracy", "medium_accuracy", "few_accuracy")
SMALLER = ("nll", "ece", "kl", "loss", "error", "seconds")
LAST = 20
BEST = "_best"
SELECTIONS: dict[str, Callable[[list[float]], float]] = {
    f"_median{LAST}": median, f"_mean{LAST}": fmean, BEST: max,
}  # fmt: skip
"""What a reporting rule makes of the evaluations on the way, by the end of the metric's name."""
PSEUDO_ACCURACY = "train_pseudo_accuracy"


def is_accuracy(metric: str) -> bool:
    """Tell whether the metric is a share of right answers, or of equal ones: percentage points."""
    name = selection(metric)[0].split("@")[0]
    return name.endswith(("accuracy", "agreement")) and not metric.startswith("log:")


def selection(metric: str) -> tuple[str, str]:
    """Return the curve that a metric summarises and the end of its name that says how, or ''."""
    for end in SELECTIONS:
        if metric.endswith(f"accuracy{end}"):
            return metric.removesuffix(end), end
    return metric, ""


def unit(metric: str) -> str:
    """Return ``pp`` or an empty string."""
    return "pp" if is_accuracy(metric) else ""


def smaller_is_better(metric: str) -> bool:
    """Tell whether a comparator chosen by this metric is the one with the smallest value."""
    return metric.split("@")[0].endswith(SMALLER)


def value(record: Record, metric: str) -> float | None:
    """Return the metric as the record has it; None where it is missing or not finite."""
    if metric.startswith("log:"):
        inner = value(record, metric.removeprefix("log:"))
        return log(inner) if inner is not None and inner > 0 else None
    if "@" in metric:
        name, _, fraction = metric.partition("@")
        return _on_curve(record, name, float(fraction))
    name, rule = selection(metric)
    if rule:
        return _selected(record, name, rule)
    final = record.get("final") or {}
    if metric in final:
        return _number(final[metric])
    if metric in OWN:
        return _number(record.get(metric))
    if metric == "minority_accuracy" or metric in THIRDS:
        return _by_class(final, metric)
    return None


def shown(record: Record, metric: str) -> float | None:
    """Return the metric in the unit of comparisons: accuracies in percentage points."""
    found = value(record, metric)
    return found * 100 if found is not None and is_accuracy(metric) else found


def _number(raw: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not isfinite(raw):
        return None
    return float(raw)


def curve(record: Record, name: str) -> tuple[list[int], list[Any]]:
    """Return the epochs and values of one curve; empty lists where there is none."""
    curves = record.get("curve") or {}
    if name == PSEUDO_ACCURACY:
        return _pseudo_accuracy(record)
    values = list(curves.get(name) or [])
    epochs = list(curves.get("eval_epoch") or [])
    if len(epochs) != len(values) or not name.removeprefix("raw_").startswith(("val_", "test_")):
        epochs = list(curves.get("epoch") or [])
    return (epochs, values) if len(epochs) == len(values) else ([], [])


def _pseudo_accuracy(record: Record) -> tuple[list[int], list[Any]]:
    """Return the curve of the accuracy of the pseudo-labels used; None where none was."""
    epochs, correct = curve(record, "train_pseudo_correct")
    _, used = curve(record, "train_mask_rate")
    if len(used) != len(correct):
        return [], []
    return epochs, [r / share if share else None for r, share in zip(correct, used, strict=True)]


def _selected(record: Record, name: str, rule: str) -> float | None:
    """Return what a reporting rule makes of a curve; None where a value that it takes is missing.

    Where there are few evaluations, 20 of them would reach back to where the run still learns.
    """
    _, values = curve(record, name)
    late = values if rule == BEST else values[-min(LAST, -(-len(values) // 4)) :]
    numbers = [_number(each) for each in late]
    known = [number for number in numbers if number is not None]
    return SELECTIONS[rule](known) if known and len(known) == len(numbers) else None


def _on_curve(record: Record, name: str, fraction: float) -> float | None:
    """Return a curve's value at the evaluation nearest a fraction of the run.

    The last evaluation is the end of the run, whether epochs count from 0 or from 1. Of two
    evaluations equally near, the earlier one counts.
    """
    epochs, values = curve(record, name)
    if not epochs:
        return None
    total = (record.get("settings") or {}).get("epochs") or epochs[-1] + 1
    offset = total - epochs[-1]
    nearest = min(range(len(epochs)), key=lambda i: abs((epochs[i] + offset) / total - fraction))
    return _number(values[nearest])


def _by_class(final: Mapping[str, Any], metric: str) -> float | None:
    """Return the mean test accuracy of one group of classes; None without per-class figures."""
    accuracy = np.array(final.get("test_class_accuracy") or [], dtype=np.float64)
    count = np.array(final.get("train_class_count") or [], dtype=np.float64)
    if not accuracy.size or accuracy.size != count.size or not np.isfinite(count).all():
        return None
    if metric == "minority_accuracy":
        # Classes of equal size have no minority: the selection is empty.
        group = np.flatnonzero(count < (count.min() + count.max()) / 2)
    else:
        group = np.array_split(np.argsort(-count, kind="stable"), 3)[THIRDS.index(metric)]
    chosen = accuracy[group]
    chosen = chosen[np.isfinite(chosen)]
    return float(chosen.mean()) if chosen.size else None
