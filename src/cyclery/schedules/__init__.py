"""Schedules: every quantity that changes during training, as a pure function of the clock.

A schedule is a number or ``{"kind": ...}``; `column` turns it into one float64 per update.

A file of this folder is a kind of schedule, found by its name, so adding one needs no other edit.
It declares a frozen, keyword-only dataclass ``Settings`` that derives from ``Schedule``:

- its docstring, and ``key(doc, low=, high=, above=, below=)`` of each field, are what the reference
  page and the JSON Schema say of it; ``amount`` marks a value of the quantity itself, ``Number``
  one that may also be a bound of the learning-rate range test, and ``Nested`` a schedule;
- ``column(clock, seed)`` returns float64 [updates] from the time of every update and, for what is
  drawn, the seed of the run; what needs no clock but epochs says ``BY_EPOCH = True``;
- ``BATCH = True`` allows it as a batch size, which is known before updates can be counted;
- ``__post_init__`` raises a UserError, which begins with a key, for keys that exclude each other.

What several kinds share lies in files whose names begin with ``_``.
"""

from __future__ import annotations

from cyclery.schedules._clock import Clock, Column, clock_for
from cyclery.schedules._columns import column, epoch_batches
from cyclery.schedules._files import kinds, names, settings_type
from cyclery.schedules._read import QUANTITY, Nested, amounts, check, check_batch, normalise, words
from cyclery.schedules._schedule import (
    RANGE_WORDS,
    Number,
    Quantity,
    Schedule,
    amount,
    key,
)

__all__ = [
    "QUANTITY",
    "RANGE_WORDS",
    "Clock",
    "Column",
    "Nested",
    "Number",
    "Quantity",
    "Schedule",
    "amount",
    "amounts",
    "check",
    "check_batch",
    "clock_for",
    "column",
    "epoch_batches",
    "key",
    "kinds",
    "names",
    "normalise",
    "settings_type",
    "words",
]
