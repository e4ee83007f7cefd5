"""Accuracy of groups of classes by their numbers of training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclery.records.metrics._reading import Record

Group = Callable[[NDArray[np.float64]], NDArray[Any]]
# Of a long tail: common, medium and rare classes.
THIRDS = ("many_accuracy", "medium_accuracy", "few_accuracy")


def third(index: int) -> Group:
    """Return what takes a third of the classes, the larger ones first."""
    return lambda count: np.array_split(np.argsort(-count, kind="stable"), 3)[index]


def of_group(record: Record, group: Group) -> float | None:
    """Return the mean test accuracy of a group of classes; None without figures by class.

    ``group`` takes the training samples of every class and returns the numbers of its classes.
    """
    final = record.get("final") or {}
    accuracy = np.array(final.get("test_class_accuracy") or [], dtype=np.float64)
    count = np.array(final.get("train_class_count") or [], dtype=np.float64)
    if not accuracy.size or accuracy.size != count.size or not np.isfinite(count).all():
        return None
    chosen = accuracy[group(count)]
    chosen = chosen[np.isfinite(chosen)]
    return float(chosen.mean()) if chosen.size else None
