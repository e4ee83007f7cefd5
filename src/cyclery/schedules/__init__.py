"""Schedules: every quantity that changes with time, as a pure function of the clock.

A schedule is a number or ``{"kind": ...}``; `column` turns it into one float64 per update.
`kinds` declares what may be written, `check` judges it, `columns` computes it on a `clock`.
"""

from __future__ import annotations

from cyclery.schedules.check import check, check_batch, is_constant, normalise, words
from cyclery.schedules.clock import Clock, clock_for
from cyclery.schedules.columns import column, epoch_batches, eta
from cyclery.schedules.kinds import KINDS, Kind, Number, Quantity, Schedule, Stage

__all__ = [
    "KINDS",
    "Clock",
    "Kind",
    "Number",
    "Quantity",
    "Schedule",
    "Stage",
    "check",
    "check_batch",
    "clock_for",
    "column",
    "epoch_batches",
    "eta",
    "is_constant",
    "normalise",
    "words",
]
