"""Queries that the teachers of a private student have answered."""

from __future__ import annotations

from cyclery.records.metrics._units import COUNT

UNIT = COUNT
BETTER = None
BY_ENDING = True
WORDS = {"train_answers": "answered queries"}
