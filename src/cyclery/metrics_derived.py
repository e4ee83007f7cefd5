"""Read a metric off a run's record.

A metric is one of

- a key of ``record["final"]``, or one of the record's own numbers (``seconds``, ``images``, ...);
- ``name@fraction``: the curve ``name`` at the evaluation nearest that fraction of the run;
- ``minority_accuracy``: mean accuracy of the classes with fewer training samples than the middle
  between the smallest and the largest class (the smaller half of a two-level imbalance);
- ``many_accuracy``, ``medium_accuracy``, ``few_accuracy``: mean accuracy of the thirds of the
  classes by training samples, the larger third first where three does not divide their number;
- ``log:name``: its natural logarithm, so that differences are ratios (of training times, say).

Accuracies are fractions in records and percentage points in comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log
from typing import Any

import numpy as np

Record = Mapping[str, Any]

OWN = ("seconds", "images", "updates", "images_per_second")
THIRDS = ("many_accuracy", "medium_accuracy", "few_accuracy")
SMALLER = ("nll", "ece", "loss", "error", "seconds")


def is_accuracy(metric: str) -> bool:
    """Tell whether the metric is a share of right answers, shown in percentage points."""
    return metric.split("@")[0].endswith("accuracy") and not metric.startswith("log:")


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
    values = list(curves.get(name) or [])
    epochs = list(curves.get("eval_epoch") or [])
    if len(epochs) != len(values) or not name.startswith(("val_", "test_")):
        epochs = list(curves.get("epoch") or [])
    return (epochs, values) if len(epochs) == len(values) else ([], [])


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
