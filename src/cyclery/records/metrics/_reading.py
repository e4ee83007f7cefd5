"""Read figures and curves from a record."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

Record = Mapping[str, Any]
Curve = tuple[list[int], list[Any]]


def number(raw: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not isfinite(raw):
        return None
    return float(raw)


def stored_curve(record: Record, name: str) -> Curve:
    """Return the epochs and values of a curve that a record holds, empty lists without it."""
    curves = record.get("curve") or {}
    values = list(curves.get(name) or [])
    at = [list(curves.get(key) or []) for key in ("eval_epoch", "epoch")]
    # What the steps log is there for every epoch; a method may measure of the training samples too.
    for epochs in reversed(at) if name.startswith("train_") else at:
        if len(epochs) == len(values):
            return epochs, values
    return [], []


def on_curve(record: Record, curve: Curve, fraction: float) -> float | None:
    """Return a curve's value at the evaluation nearest a fraction of the run.

    The last evaluation is the end of the run, whether epochs count from 0 or from 1. Of two
    evaluations equally near, the earlier one counts.
    """
    epochs, values = curve
    if not epochs:
        return None
    total = (record.get("settings") or {}).get("epochs") or epochs[-1] + 1
    offset = total - epochs[-1]
    nearest = min(range(len(epochs)), key=lambda i: abs((epochs[i] + offset) / total - fraction))
    return number(values[nearest])
