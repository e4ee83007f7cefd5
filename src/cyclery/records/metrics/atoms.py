"""Distinguishable models on which a prior of largest information has its mass."""

from __future__ import annotations

from cyclery.records.metrics._units import COUNT

UNIT = COUNT
BETTER = None
BY_ENDING = True
